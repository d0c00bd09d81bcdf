"""Gives a queued job to a worker: the one place where capacity is enforced, in the transaction that makes the attempt.

Locks workers first, by name, then evaluations, by number, as every transaction does that locks several. Sends nothing.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlmodel import Session, col, func, select

from orchestrator import arrows, breaker, evaluations
from orchestrator.lifecycle import JobState
from orchestrator.tables import Attempt, Job, Worker
from orchestrator.wire import Mode, Stage


class Claim(NamedTuple):
    """A job for a worker, as the scheduler chose them."""

    job: int
    attempt: str
    worker: str
    boot: str
    devices: int = 1


def lock_workers(session: Session, names: Iterable[str]) -> None:
    """Hold these workers' rows until the transaction ends: before any evaluation's, as heartbeats do."""
    session.exec(
        select(Worker.name).where(col(Worker.name).in_(sorted(names))).order_by(col(Worker.name)).with_for_update()
    ).all()


def claim(
    session: Session, claim: Claim, *, identity: dict[str, object] | None, lease: timedelta, now: datetime
) -> bool:
    """Give a queued job to a worker that has the slots for it free; False when things are no longer as planned."""
    worker = session.exec(
        select(Worker.slots, Worker.boot)
        .where(Worker.name == claim.worker, col(Worker.stopping).is_(False), Worker.mode == Mode.OPEN)
        .with_for_update()
    ).first()
    held = session.exec(
        select(func.coalesce(func.sum(Attempt.devices), 0)).where(
            Attempt.worker == claim.worker, col(Attempt.ended_at).is_(None)
        )
    ).one()
    if worker is None or worker[1] != claim.boot or held + claim.devices > worker[0]:
        return False
    if not breaker.admits(session, claim.worker, holds=held > 0, now=now):
        return False
    evaluation = session.exec(select(Job.evaluation_id).where(Job.id == claim.job)).first()
    if evaluation is None:
        return False
    evaluations.lock(session, evaluation)
    if identity is not None and not _answers_with_others(session, evaluation, claim.job, identity):
        return False
    claimed = arrows.claim(
        session,
        claim.job,
        attempt=claim.attempt,
        worker=claim.worker,
        boot=claim.boot,
        devices=claim.devices,
        lease_until=now + lease,
        identity=identity,
        now=now,
    )
    if claimed:
        evaluations.advance(session, evaluation, now=now)
    return claimed


def _answers_with_others(session: Session, evaluation: int, job: int, identity: dict[str, object]) -> bool:
    """Whether the other slices of the evaluation that are or were answered have the same model identity."""
    statement = select(Job.identity).where(
        Job.evaluation_id == evaluation,
        Job.stage == Stage.INFER,
        Job.id != job,
        col(Job.state).in_((*arrows.HELD, JobState.COMPLETED)),
    )
    return all(other == identity for other in session.exec(statement))
