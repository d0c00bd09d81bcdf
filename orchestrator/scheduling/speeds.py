"""Keeps how fast inference and the harness's stages were, as sums that do not grow with history.

One row for each engine, kind of device, suite and size of model; a stage of the harness is measured in jobs of its
suite, under its name in place of a device. What an attempt measured (`measured`) is added in the transaction that
completes its job, and last in it (`add`): evaluations of one suite share the row.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col

from orchestrator.dossiers import Dossier
from orchestrator.scheduling.estimates import device_key, size_class
from orchestrator.tables import Attempt, Job, Speed
from orchestrator.wire import Done, EngineFamily, InferDone, Stage

LEAST_REQUESTS = 100
"""An attempt that computed fewer tells of its start and not of its speed."""


class Kind(NamedTuple):
    """What is measured together: the key of a row."""

    engine: EngineFamily
    device: str
    suite: str
    size_class: int


class Sums(NamedTuple):
    runs: int
    requests: int
    tokens: int
    engine_seconds: float
    start_seconds: float


def measured(dossier: Dossier, job: Job, attempt: Attempt, *, done: Done, now: datetime) -> tuple[Kind, Sums] | None:
    """What the completed attempt of this job measured, if it measured anything."""
    if job.stage is Stage.CANARY:
        return None  # a sample of everything, which tells nothing of a suite
    if isinstance(done, InferDone):
        if done.computed < LEAST_REQUESTS or not 0 < done.seconds <= done.total_seconds < float("inf"):
            return None
        where = device_key(done.engine.device, max(attempt.devices, 1))
        size = size_class(dossier.submission.facts.get("active_parameters") or dossier.submission.parameters)
        sums = Sums(1, done.computed, done.tokens_computed, done.seconds, done.total_seconds - done.seconds)
    else:
        seconds = (now - (attempt.started_at or attempt.dispatched_at)).total_seconds()
        if seconds <= 0:
            return None
        where, size, sums = Stage(job.stage).value, -1, Sums(1, 1, 0, seconds, 0.0)
    return Kind(dossier.evaluation.engine, where, dossier.evaluation.suite, size), sums


def add(session: Session, measures: Iterable[tuple[Kind, Sums]]) -> None:
    """Add these to the sums, each kind's at once, in the order of the kinds."""
    together: dict[Kind, Sums] = {}
    for kind, sums in measures:
        before = together.get(kind, Sums(0, 0, 0, 0.0, 0.0))
        together[kind] = Sums(
            before.runs + sums.runs,
            before.requests + sums.requests,
            before.tokens + sums.tokens,
            before.engine_seconds + sums.engine_seconds,
            before.start_seconds + sums.start_seconds,
        )
    for kind in sorted(together):
        _add(session, kind, together[kind])


def _add(session: Session, kind: Kind, sums: Sums) -> None:
    is_row = [col(getattr(Speed, name)) == value for name, value in kind._asdict().items()]
    values = {name: getattr(Speed, name) + more for name, more in sums._asdict().items()}
    added = update(Speed).where(*is_row).values(values)
    if session.connection().execute(added).rowcount:
        return
    try:
        with session.begin_nested():
            session.add(Speed(**kind._asdict(), **sums._asdict()))
    except IntegrityError:
        # Another transaction made the row in between.
        session.connection().execute(added)
