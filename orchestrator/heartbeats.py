"""What heartbeats change: workers' rows, the leases and progress of their attempts, and which attempts are lost.

The hub's clock alone decides about leases: a worker's own clock only orders that worker's messages. Heartbeats of one
moment are applied in one transaction, which locks what they touch together and in order: workers by name, then
evaluations by number. Sends nothing; the attempts that each worker should stop are returned.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlmodel import Session, col, select

from orchestrator import arrows, evaluations, jobs
from orchestrator.budgets import Budgets
from orchestrator.lifecycle import JobState
from orchestrator.presence import lock_rows, note_worker
from orchestrator.tables import Attempt, Evaluation, Job
from orchestrator.together import ApplyAlone, together
from orchestrator.wire import Heartbeat, Progress


class _Known(NamedTuple):
    """An open attempt as it was read before anything was locked."""

    attempt: str
    worker: str
    boot: str
    evaluation: int


def apply_heartbeat(
    session: Session, heartbeat: Heartbeat, *, lease: timedelta, now: datetime, budgets: Budgets | None = None
) -> list[str]:
    """Note that the worker lives and extend its leases; returns the attempts that it should stop.

    Attempts of an earlier boot are lost with it, unless the new one lists them: then it took over their orders, and
    they are its own from now on.
    """
    return apply_heartbeats(session, [heartbeat], lease=lease, now=now, budgets=budgets)[0]


def apply_heartbeats(
    session: Session,
    heartbeats: Sequence[Heartbeat],
    *,
    lease: timedelta,
    now: datetime,
    budgets: Budgets | None = None,
) -> list[list[str]]:
    """What `apply_heartbeat` does, for workers that are all different; for each of them what it should stop.

    Raises:
        ApplyAlone: with several, if attempts of one are lost. That locks what the others have passed.
        Overtaken: with several, if a row was not as it was read.
    """
    rows = lock_rows(session, {one.worker for one in heartbeats})
    heard = {one.worker: one for one in heartbeats if note_worker(session, rows.get(one.worker), one, now=now)}
    # An order of this boot that it does not list yet is on its way: nothing is known of it, and nothing is locked.
    known = [
        one
        for one in _open_attempts(session, heard)
        if one.attempt in heard[one.worker].running or one.boot != heard[one.worker].boot
    ]
    lost = [one.attempt for one in known if one.attempt not in heard[one.worker].running]
    if lost and len(heartbeats) > 1:
        raise ApplyAlone
    _lock_evaluations(session, {one.evaluation for one in known})
    with together(session) if len(heartbeats) > 1 else nullcontext():
        kept = _keep(session, {one.attempt: heard[one.worker] for one in known}, lease_until=now + lease, now=now)
    for attempt in lost:
        sentence = f"Worker {heartbeats[0].worker} was started again; the attempt before is lost."
        jobs.expire(session, attempt, sentence=sentence, lease_ended=False, budgets=budgets, now=now)
    return [sorted(one.running.keys() - kept) if one.worker in heard else [] for one in heartbeats]


def _open_attempts(session: Session, workers: Collection[str]) -> list[_Known]:
    statement = (
        select(Attempt.id, Attempt.worker, Attempt.boot, Job.evaluation_id)
        .join(Job, col(Job.id) == Attempt.job_id)
        .where(col(Attempt.worker).in_(workers), col(Attempt.ended_at).is_(None))
        .order_by(col(Job.evaluation_id), col(Attempt.id))
    )
    return [_Known(*row) for row in session.exec(statement)] if workers else []


def _lock_evaluations(session: Session, numbers: Collection[int]) -> None:
    """Hold the rows without reading them: of most a heartbeat changes a lease and a count, and no more."""
    if numbers:
        statement = select(Evaluation.id).where(col(Evaluation.id).in_(numbers)).order_by(col(Evaluation.id))
        session.exec(statement.with_for_update()).all()


def _keep(session: Session, listed: Mapping[str, Heartbeat], *, lease_until: datetime, now: datetime) -> set[str]:
    """Extend the leases of those that hold their jobs, and draw the consequences; which these are.

    `listed`: attempts, their evaluations locked, with the heartbeats of their workers.
    """
    if not listed:
        return set()
    theirs = select(Job).where(col(Job.attempt_id).in_(listed)).order_by(col(Job.evaluation_id), col(Job.id))
    found = session.exec(theirs.execution_options(populate_existing=True)).all()
    held = {job.attempt_id: job for job in found if job.attempt_id is not None and job.state.is_held}
    # Only these need the rest of their evaluation.
    moved = [
        attempt
        for attempt, job in held.items()
        if (progress := listed[attempt].running.get(attempt)) is not None and _has_consequences(job, progress)
    ]
    dossiers = jobs.held_by(session, moved)
    kept = set()
    for attempt, job in held.items():
        progress, boot = listed[attempt].running.get(attempt), listed[attempt].boot
        if progress is None:
            continue
        kept.add(attempt)
        started = job.state is JobState.DISPATCHED and arrows.start(session, job, attempt, now=now)
        before = job.benchmarks_done
        arrows.touch(session, job, attempt, progress=progress, boot=boot, lease_until=lease_until)
        # What was reported before had its consequences then.
        if attempt in dossiers and (started or job.benchmarks_done != before):
            evaluations.advance(session, dossiers[attempt].dossier, now=now)
    return kept


def _has_consequences(job: Job, progress: Progress) -> bool:
    """Whether more of the evaluation moves with it than the lease and the count of its requests."""
    sealed = [arrows.clean(name) for name in progress.benchmarks_done]
    return job.state is JobState.DISPATCHED or bool(sealed and sealed != job.benchmarks_done)
