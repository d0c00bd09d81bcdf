"""Gives queued jobs to workers: the one place where capacity is enforced, in the transaction that makes the attempts.

Locks workers first, by name, then evaluations, by number, as every transaction does that locks several. Sends nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlmodel import Session, col, func, select

from orchestrator import arrows, breaker, evaluations
from orchestrator.canaries.admission import read_admission
from orchestrator.canaries.builds import Entry
from orchestrator.canaries.runs import builds_of
from orchestrator.dossiers import Dossier
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


@dataclass
class Capacity:
    """What one worker has free, while its row is locked."""

    boot: str
    slots: int
    used: int
    """Slots that its open attempts hold."""
    is_held_back: bool
    on_trial: bool
    """It may be given one job, while it holds none (`orchestrator.breaker`)."""
    build: str = ""
    entry: Entry = Entry.OPEN

    def admits(self, claim: Claim, *, canary_on: str | None = None) -> bool:
        """Whether the worker may have it; `canary_on`: the build that a canary's job is for."""
        if self.boot != claim.boot or self.is_held_back or (self.on_trial and self.used):
            return False
        if self.entry is not Entry.OPEN if canary_on is None else self.build != canary_on:
            return False
        return self.used + claim.devices <= self.slots


def lock_workers(session: Session, names: Iterable[str], *, now: datetime) -> dict[str, Capacity]:
    """Hold these workers' rows until the transaction ends: before any evaluation's, as heartbeats do.

    A worker that is stopping, not open or unknown has no entry.
    """
    wanted = sorted(names)
    rows = session.exec(
        select(Worker)
        .where(col(Worker.name).in_(wanted))
        .order_by(col(Worker.name))
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
    # After the lock, in a statement of its own: whoever else claims for these workers has committed by now.
    used = dict(
        session.exec(
            select(Attempt.worker, func.sum(Attempt.devices))
            .where(col(Attempt.worker).in_(wanted), col(Attempt.ended_at).is_(None))
            .group_by(col(Attempt.worker))
        ).all()
    )
    suspicions = breaker.suspicions(session, now=now)
    admission = read_admission(session)
    return {
        row.name: Capacity(
            boot=row.boot,
            slots=row.slots,
            used=int(used.get(row.name, 0)),
            is_held_back=row.name in suspicions and suspicions[row.name].held_back,
            on_trial=row.name in suspicions,
            build=row.build,
            entry=admission.of(row),
        )
        for row in rows
        if not row.stopping and row.mode is Mode.OPEN
    }


def claim(
    session: Session,
    claim: Claim,
    *,
    workers: dict[str, Capacity],
    dossier: Dossier,
    identity: dict[str, object] | None,
    lease: timedelta,
    now: datetime,
) -> bool:
    """Give a queued job to a worker that has the slots for it free; False when things are no longer as planned.

    `workers` (`lock_workers`) and the job's `dossier` were locked in this transaction; both are kept true.
    """
    worker, job = workers.get(claim.worker), dossier.job(claim.job)
    if worker is None or job is None:
        return False
    is_canary = job.stage is Stage.CANARY
    if not worker.admits(claim, canary_on=builds_of(session, [claim.job]).get(claim.job, "") if is_canary else None):
        return False
    if identity is not None and not is_canary and not _answers_with_others(dossier, job, identity):
        return False
    claimed = arrows.claim(
        session,
        job,
        attempt=claim.attempt,
        worker=claim.worker,
        boot=claim.boot,
        devices=claim.devices,
        lease_until=now + lease,
        identity=identity,
        now=now,
    )
    if claimed:
        worker.used += claim.devices
        evaluations.advance(session, dossier, now=now)
    return claimed


def _answers_with_others(dossier: Dossier, job: Job, identity: dict[str, object]) -> bool:
    """Whether the other slices of the evaluation that are or were answered have the same model identity."""
    return all(
        other.identity == identity
        for other in dossier.jobs
        if other.stage is Stage.INFER
        and other is not job
        and (other.state.is_held or other.state is JobState.COMPLETED)
    )
