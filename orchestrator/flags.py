"""Flags: what operators warn of on a model's rows, with reason and link. Never silent: each is an event of every row.

A flag takes no row off the board and changes no number.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from sqlmodel import Session, col, select

from orchestrator.errors import NotFound, Refused
from orchestrator.tables import Evaluation, Event, Flag, Submission
from orchestrator.tables.flags import FlagKind

EVALUATION_FLAGGED = "evaluation_flagged"
FLAG_LIFTED = "flag_lifted"


def flag(
    session: Session,
    model: str,
    *,
    kind: FlagKind,
    reason: str,
    now: datetime,
    revision: str | None = None,
    link: str = "",
    by: str = "",
) -> Flag:
    """Warn of a model, of all its revisions or of one commit.

    Raises:
        NotFound: nobody has submitted this model, or this revision of it.
        Refused: there is no reason, or the link is no web address.
    """
    reason = reason.strip()
    if not reason:
        raise Refused("A flag needs a reason that readers can judge. Say it in a sentence.")
    if link and (urlsplit(link).scheme not in ("http", "https") or not urlsplit(link).hostname):
        raise Refused(f"{link[:80]!r} is no web address. Give the link as https://….")
    revision = _whole_revision(session, model, revision)
    row = Flag(model=model, revision=revision, kind=kind, reason=reason, link=link, by=by, at=now)
    session.add(row)
    session.flush()
    details: dict[str, Any] = {"flag": row.id, "kind": kind.value, "reason": reason, "link": link, "by": by}
    _tell(session, row, EVALUATION_FLAGGED, details, now=now)
    return row


def lift(session: Session, flag_id: int, *, reason: str, now: datetime, by: str = "") -> Flag:
    """Take a flag off; it stays in the history with the reason.

    Raises:
        NotFound: there is no such flag, or it is lifted already.
        Refused: there is no reason.
    """
    if not reason.strip():
        raise Refused("Say why the flag is lifted, in a sentence.")
    row = session.get(Flag, flag_id, populate_existing=True, with_for_update=True)
    if row is None or row.lifted_at is not None:
        raise NotFound(f"There is no flag {flag_id} to lift. See them with: evalyard flag --list")
    row.lifted_at, row.lifted_by, row.lifted_because = now, by, reason.strip()
    session.add(row)
    _tell(session, row, FLAG_LIFTED, {"flag": row.id, "reason": reason.strip(), "by": by}, now=now)
    return row


def flags_by_model(session: Session, models: Collection[str] | None = None) -> dict[str, list[Flag]]:
    """The flags that hold, by model; of all models or of these."""
    statement = select(Flag).where(col(Flag.lifted_at).is_(None)).order_by(col(Flag.id))
    if models is not None:
        statement = statement.where(col(Flag.model).in_(models))
    found: dict[str, list[Flag]] = defaultdict(list)
    for row in session.exec(statement):
        found[row.model].append(row)
    return found


def list_flags(session: Session, *, model: str | None = None) -> Sequence[Flag]:
    """Every flag, lifted ones too, the latest first."""
    statement = select(Flag).order_by(col(Flag.id).desc())
    return session.exec(statement.where(Flag.model == model) if model else statement).all()


def _whole_revision(session: Session, model: str, revision: str | None) -> str | None:
    known = set(session.exec(select(Submission.revision).where(Submission.model == model)).all())
    if not known:
        raise NotFound(f"Nobody has submitted a model {model[:200]!r}. Write its name as the board does.")
    if not revision:
        return None
    found = sorted(each for each in known if each.startswith(revision))
    if len(found) != 1:
        raise NotFound(f"{model} has {'no' if not found else 'more than one'} revision {revision[:60]!r} here.")
    return found[0]


def _tell(session: Session, row: Flag, name: str, details: dict[str, Any], *, now: datetime) -> None:
    """One event for each evaluation that carries the flag: its history says so, and boards read it anew."""
    statement = select(Evaluation.id).join(Submission, col(Submission.id) == col(Evaluation.submission_id))
    statement = statement.where(Submission.model == row.model)
    if row.revision:
        statement = statement.where(Submission.revision == row.revision)
    for evaluation in session.exec(statement).all():
        session.add(Event(at=now, evaluation_id=evaluation, name=name, details=details))
    session.flush()
