"""Receipts: what became of a submission that came with an idempotency key, so that asking again does nothing again.

A receipt is written in the transaction that queues the evaluation: there is never one without the other.
"""

import hashlib
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from orchestrator.errors import Refused
from orchestrator.tables import Receipt
from orchestrator.wire import canonical_json
from submissions.people.viewer import Viewer
from submissions.request import SubmissionRequest

KEPT = timedelta(hours=24)
KEY_CHARACTERS = 255


class Slip(NamedTuple):
    """What a receipt is known by, and what it is for."""

    key: str
    request: str


class AlreadyKept(Exception):
    """Another request with the same key came first; what this transaction did must be undone."""


def slip(viewer: Viewer, key: str, request: SubmissionRequest) -> Slip:
    """The slip of a request: keys are each person's own. Pure."""
    asked = canonical_json(request.model_dump(mode="json"))
    return Slip(_digest(f"{viewer.person or 0}\0{key}".encode()), _digest(asked))


def find(session: Session, wanted: Slip, *, now: datetime) -> Receipt | None:
    """The receipt, if there is one.

    Raises:
        Refused: the key was used for something else.
    """
    found = session.exec(select(Receipt).where(Receipt.key == wanted.key, Receipt.made_at > now - KEPT)).first()
    if found is not None and found.request != wanted.request:
        raise Refused("This Idempotency-Key was used for another submission. Take a new key for each.")
    return found


def keep(session: Session, wanted: Slip, evaluation: int, *, existing: bool, now: datetime) -> None:
    """Write the receipt of what this transaction recorded.

    Raises:
        AlreadyKept: another request was faster.
    """
    session.exec(delete(Receipt).where(col(Receipt.made_at) <= now - KEPT))
    try:
        with session.begin_nested():
            session.add(Receipt(**wanted._asdict(), evaluation_id=evaluation, existing=existing, made_at=now))
    except IntegrityError as error:
        raise AlreadyKept from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
