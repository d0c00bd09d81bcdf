"""What a heartbeat changes: the worker's row, the leases and progress of its attempts, and which attempts are lost.

The hub's clock alone decides about leases: a worker's own clock only orders that worker's messages. Sends nothing; the
attempts that the worker should stop are returned.
"""

from datetime import datetime, timedelta

from sqlmodel import Session, col, select

from orchestrator import arrows, evaluations, jobs
from orchestrator.budgets import Budgets
from orchestrator.tables import Attempt, Job, Worker
from orchestrator.wire import Heartbeat, Progress

OVERTAKEN = timedelta(minutes=1)
"""A message of another boot that is older than the last one by less than this was overtaken; by more, the worker's
clock was set back."""


def apply_heartbeat(
    session: Session, heartbeat: Heartbeat, *, lease: timedelta, now: datetime, budgets: Budgets | None = None
) -> list[str]:
    """Note that the worker lives and extend its leases; returns the attempts that it should stop.

    Attempts of an earlier boot are lost with it, unless the new one lists them: then it took over their orders, and
    they are its own from now on.
    """
    if not _note_worker(session, heartbeat, now=now):
        return []
    known = session.exec(
        select(Attempt.id, Job.evaluation_id, Attempt.boot)
        .join(Job, col(Job.id) == Attempt.job_id)
        .where(Attempt.worker == heartbeat.worker, col(Attempt.ended_at).is_(None))
        # Rows are locked in this order by every transaction that locks several evaluations.
        .order_by(col(Job.evaluation_id), col(Attempt.id))
    ).all()
    stale = set(heartbeat.running) - {attempt for attempt, _, _ in known}
    for attempt, evaluation, boot in known:
        progress = heartbeat.running.get(attempt)
        if progress is not None:
            kept = _keep(
                session,
                attempt,
                evaluation,
                progress=progress,
                boot=heartbeat.boot,
                lease_until=now + lease,
                now=now,
            )
            if not kept:
                stale.add(attempt)
        elif boot != heartbeat.boot:
            sentence = f"Worker {heartbeat.worker} was started again; the attempt before is lost."
            jobs.expire(session, attempt, sentence=sentence, lease_ended=False, budgets=budgets, now=now)
    return sorted(stale)


def _keep(
    session: Session,
    attempt: str,
    evaluation: int,
    *,
    progress: Progress,
    boot: str,
    lease_until: datetime,
    now: datetime,
) -> bool:
    """Extend one attempt's lease and draw the consequences of its progress; False for a stale attempt."""
    evaluations.lock(session, evaluation)
    started = arrows.start(session, attempt, now=now)
    if not arrows.touch(session, attempt, progress=progress, boot=boot, lease_until=lease_until):
        return False
    if started or progress.benchmarks_done:
        evaluations.advance(session, evaluation, now=now)
    return True


def _note_worker(session: Session, heartbeat: Heartbeat, *, now: datetime) -> bool:
    """Write the worker's row; False for a heartbeat of an earlier boot that a later one has overtaken."""
    statement = select(Worker).where(Worker.name == heartbeat.worker).with_for_update()
    worker = session.exec(statement.execution_options(populate_existing=True)).first()
    if worker is None:
        worker = Worker(
            name=heartbeat.worker,
            kind=heartbeat.kind,
            boot=heartbeat.boot,
            first_seen=now,
            last_heartbeat=now,
            reported_at=heartbeat.at,
        )
    elif timedelta(0) < worker.reported_at - heartbeat.at < OVERTAKEN and worker.boot != heartbeat.boot:
        return False
    elif timedelta(0) < worker.reported_at - heartbeat.at < OVERTAKEN and worker.boot == heartbeat.boot:
        # Overtaken by a moment: it lives, and what it said later counts.
        worker.last_heartbeat = now
        worker.stopping = worker.stopping or heartbeat.stopping
        session.add(worker)
        session.flush()
        return True
    engine = heartbeat.engine
    worker.kind = heartbeat.kind
    worker.boot = heartbeat.boot
    worker.slots = heartbeat.slots
    worker.stopping = heartbeat.stopping
    worker.engine_family = engine.family if engine else None
    worker.engine_version = engine.version if engine else None
    worker.device_type = engine.device_type if engine else None
    worker.device = engine.device if engine else None
    worker.device_count = max(engine.device_count, 1) if engine else 1
    worker.memory_bytes = engine.memory_bytes if engine else None
    # Said by the worker's clock, kept by the hub's.
    worker.until = now + (heartbeat.until - heartbeat.at) if heartbeat.until else None
    worker.weights = list(heartbeat.weights)
    worker.warm = list(heartbeat.warm)
    worker.harnesses = list(heartbeat.harnesses)
    worker.sentence = heartbeat.sentence
    worker.gpus = [gpu.model_dump(mode="json") for gpu in heartbeat.gpus]
    worker.last_heartbeat = now
    worker.reported_at = heartbeat.at
    session.add(worker)
    session.flush()
    return True
