"""The runs of a canary: made for a build, ordered as a job of its evaluation, concluded once the job has ended.

A run answers under a model identity of its own, `{**identity, "canary": "<canary>-<run>"}`. So nothing of it is taken
from the store, nothing of it can be mixed into the store, and an attempt that was preempted is gone on with, all by the
rules that hold for every response.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, select

from orchestrator.canaries.drift import Bounds, Drift, breaches, described
from orchestrator.errors import WrongState
from orchestrator.lifecycle import CanaryRunState, CanaryState, JobState
from orchestrator.tables import Attempt, Canary, CanaryRun, Job
from orchestrator.wire import InferWork, Model, Stage

HEAD_START = timedelta(days=30)
"""How much earlier than it is the job of a canary stands in the queue."""


def lock_canary(session: Session, number: int) -> Canary:
    """The canary's row, held until the transaction ends."""
    locked = select(Canary).where(Canary.id == number).with_for_update().execution_options(populate_existing=True)
    return session.exec(locked).one()


def make_run(
    session: Session, canary: Canary, *, build: str, facts: Mapping[str, Any], by: str = "", now: datetime
) -> CanaryRun | None:
    """Queue a canary on a build; None when it waits there already. The canary's row is locked.

    Raises:
        WrongState: the canary has ended.
    """
    if canary.state is not CanaryState.PRESENT or canary.id is None:
        raise WrongState(f"Canary {canary.id} is {canary.state.value}: nothing is run of it.")
    waiting = select(CanaryRun.id).where(
        CanaryRun.canary_id == canary.id, CanaryRun.build == build, CanaryRun.state == CanaryRunState.WAITING
    )
    if session.exec(waiting).first() is not None:
        return None
    run = CanaryRun(canary_id=canary.id, build=build, facts=dict(facts), made_at=now, made_by=by)
    session.add(run)
    session.flush()
    job = Job(
        evaluation_id=canary.evaluation_id,
        stage=Stage.CANARY,
        benchmark=f"canary run {run.id}",
        state=JobState.QUEUED,
        turn_at=now - HEAD_START,
        longest=canary.longest or None,
        requests_total=canary.requests,
        created_at=now,
    )
    session.add(job)
    session.flush()
    run.job_id = job.id
    session.add(run)
    session.flush()
    return run


def builds_of(session: Session, jobs: list[int]) -> dict[int, str]:
    """On which build each of these canaries' jobs is to be run."""
    rows = session.exec(select(CanaryRun.job_id, CanaryRun.build).where(col(CanaryRun.job_id).in_(jobs))).all()
    return {job: build for job, build in rows if job is not None}


def work_of(session: Session, job: Job, *, model: Model, attempt: str) -> InferWork:
    """The work of an attempt at a canary's job."""
    run = session.exec(select(CanaryRun).where(CanaryRun.job_id == job.id)).one()
    canary = session.exec(select(Canary).where(Canary.id == run.canary_id)).one()
    return InferWork(
        model=model,
        identity=identity_of(canary, run),
        engine=canary.engine,
        sheets={kind: str(key) for kind, key in sorted(canary.sheets.items())},
        attempt=attempt,
    )


def identity_of(canary: Canary, run: CanaryRun) -> dict[str, Any]:
    """Under which the answers of a run are kept."""
    return {**canary.identity, "canary": f"{canary.id}-{run.id}"}


def conclude(
    session: Session, run: int, *, drift: Drift | None, trouble: str, bounds: Bounds, now: datetime
) -> CanaryRun | None:
    """Write what a run showed: its drift, or why there is none. None when that was written before.

    Raises nothing that a second process at the same moment could cause.
    """
    number = session.exec(select(CanaryRun.canary_id).where(CanaryRun.id == run)).one()
    lock_canary(session, number)
    row = session.exec(select(CanaryRun).where(CanaryRun.id == run).execution_options(populate_existing=True)).one()
    if row.state is not CanaryRunState.WAITING:
        return None
    row.ended_at, row.bounds, row.worker = now, asdict(bounds), _answered_on(session, row)
    if drift is None:
        row.state, row.sentence = CanaryRunState.FAILED, trouble
    else:
        found = breaches(drift, bounds)
        row.drift = asdict(drift)
        row.state = CanaryRunState.DRIFTED if found else CanaryRunState.PASSED
        row.sentence = f"{'; '.join(found)}." if found else f"{described(drift)}."
        row.sentence = row.sentence[:1].upper() + row.sentence[1:]
    session.add(row)
    session.flush()
    return row


def _answered_on(session: Session, run: CanaryRun) -> str:
    """The worker of the job's last attempt."""
    last = select(Attempt.worker).where(Attempt.job_id == run.job_id).order_by(col(Attempt.dispatched_at).desc())
    return session.exec(last.limit(1)).first() or ""
