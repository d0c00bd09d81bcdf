"""Moves the jobs of an evaluation: makes them, gives them to workers, takes them back, cancels, retries.

Each public function is one transaction's work: it first locks the evaluation's row, so that two changes of the same
evaluation follow each other, then moves jobs by `orchestrator.arrows` and draws the consequences (`advance`). What
workers report comes in by `updates` and `heartbeats`. Sends nothing.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import update
from sqlmodel import Session, col, func, select

from orchestrator import arrows, evaluations
from orchestrator.budgets import Budgets, Tally, count, pause_before_retry
from orchestrator.errors import NotFound, WrongState
from orchestrator.lifecycle import JobState
from orchestrator.tables import Attempt, Evaluation, Event, Job, Worker
from orchestrator.wire import FailureKind, Stage

EVALUATION_CREATED = "evaluation_created"


def create_jobs(session: Session, evaluation: Evaluation, benchmarks: Sequence[str], *, priority: int = 0) -> None:
    """Give a new evaluation its jobs: prepare and score for each benchmark, and one infer for all of them."""
    if evaluation.id is None:
        session.flush()
    assert evaluation.id is not None
    now = evaluation.created_at

    def add(stage: Stage, state: JobState, benchmark: str = "") -> None:
        assert evaluation.id is not None
        session.add(
            Job(
                evaluation_id=evaluation.id,
                stage=stage,
                benchmark=benchmark,
                state=state,
                priority=priority,
                created_at=now,
            )
        )

    for benchmark in benchmarks:
        add(Stage.PREPARE, JobState.QUEUED, benchmark)
    add(Stage.INFER, JobState.BLOCKED)
    for benchmark in benchmarks:
        add(Stage.SCORE, JobState.BLOCKED, benchmark)
    details = {"benchmarks": list(benchmarks)}
    session.add(Event(at=now, evaluation_id=evaluation.id, name=EVALUATION_CREATED, details=details))
    session.flush()


class Claim(NamedTuple):
    """A job for a worker, as the scheduler chose them."""

    job: int
    attempt: str
    worker: str
    boot: str


def claim(
    session: Session, claim: Claim, *, identity: dict[str, object] | None, lease: timedelta, now: datetime
) -> bool:
    """Give a queued job to a worker that has a free slot; False when another control was faster."""
    worker = session.exec(
        select(Worker.slots, Worker.boot)
        .where(Worker.name == claim.worker, col(Worker.stopping).is_(False))
        .with_for_update()
    ).first()
    held = session.exec(
        select(func.count()).where(Attempt.worker == claim.worker, col(Attempt.ended_at).is_(None))
    ).one()
    if worker is None or worker[1] != claim.boot or held >= worker[0]:
        return False
    evaluation = session.exec(select(Job.evaluation_id).where(Job.id == claim.job)).first()
    if evaluation is None:
        return False
    evaluations.lock(session, evaluation)
    claimed = arrows.claim(
        session,
        claim.job,
        attempt=claim.attempt,
        worker=claim.worker,
        boot=claim.boot,
        lease_until=now + lease,
        identity=identity,
        now=now,
    )
    if claimed:
        evaluations.advance(session, evaluation, now=now)
    return claimed


def expire(
    session: Session,
    attempt: str,
    *,
    sentence: str,
    now: datetime,
    lease_ended: bool = True,
    budgets: Budgets | None = None,
) -> bool:
    """Give up an attempt whose worker is lost; False when a report, or a heartbeat within its lease, came in between.

    `lease_ended=False` does not wait for the lease: the worker itself says that the attempt is no more.
    """
    held = lock_held(session, attempt)
    if held is None:
        return False
    expired = lose(
        session,
        held,
        failure=FailureKind.NODE_LOST,
        sentence=sentence,
        outcome="expired",
        lease_ended=lease_ended,
        budgets=budgets or Budgets(),
        now=now,
    )
    if expired:
        evaluations.advance(session, held.evaluation_id, now=now)
    return expired


def give_up(session: Session, attempt: str, *, failure: FailureKind, sentence: str, now: datetime) -> bool:
    """End an attempt by a failure that the hub itself found; False when it holds no job any more."""
    held = lock_held(session, attempt)
    if held is None:
        return False
    ended = lose(session, held, failure=failure, sentence=sentence, budgets=Budgets(), now=now)
    evaluations.advance(session, held.evaluation_id, now=now)
    return ended


def take_back(session: Session, attempt: str, *, sentence: str, now: datetime) -> bool:
    """Undo a claim whose order could not be sent; costs the job nothing."""
    held = lock_held(session, attempt)
    if held is None:
        return False
    taken = arrows.requeue(session, attempt, outcome="unsent", sentence=sentence, now=now)
    evaluations.advance(session, held.evaluation_id, now=now)
    return taken


def cancel(session: Session, evaluation: int, now: datetime) -> list[str]:
    """Cancel what is not yet done; returns the attempts that should be asked to stop.

    Raises:
        NotFound, WrongState: there is no such evaluation, or it has ended.
    """
    row = _evaluation(session, evaluation)
    if row.state.is_final:
        raise WrongState(f"Evaluation {evaluation} is already {row.state.value}: there is nothing to cancel.")
    stopped = []
    for job in evaluations.jobs_of(session, evaluation):
        if job.state.is_final or job.id is None:
            continue
        attempt = job.attempt_id if job.state.is_held else None
        if arrows.cancel(session, job.id, attempt=attempt, sentence="Cancelled on request.", now=now) and attempt:
            stopped.append(attempt)
    evaluations.advance(session, evaluation, now=now)
    return stopped


def retry(session: Session, evaluation: int, now: datetime) -> int:
    """Queue again what failed, with fresh budgets; returns how many jobs. Completed scores and responses are kept.

    What failed for want of a usable sheet or of responses starts at the stage that makes them.

    Raises:
        NotFound, WrongState: there is no such evaluation, it goes on, or nothing in it failed.
    """
    row = _evaluation(session, evaluation)
    if not row.state.is_final:
        raise WrongState(f"Evaluation {evaluation} is {row.state.value}. Retry it once it has ended.")
    jobs = evaluations.jobs_of(session, evaluation)
    failed = [job for job in jobs if job.state is JobState.FAILED]
    if any(job.state is JobState.CANCELLED for job in jobs):
        raise WrongState(f"Evaluation {evaluation} was cancelled. Submit the model again.")
    if not failed:
        raise WrongState(f"Evaluation {evaluation} has no failed job: there is nothing to retry.")
    prepare_again = _to_prepare_again(jobs)
    # A score job that failed by ENGINE lacks answers to requests that were set aside.
    infer_again = bool(prepare_again) or any(
        job.stage is Stage.INFER or job.failure in (FailureKind.RESPONSES, FailureKind.ENGINE) for job in failed
    )
    for job in jobs:
        assert job.id is not None
        move = arrows.retry if job.state is JobState.FAILED else arrows.reopen
        if job.stage is Stage.PREPARE and job.benchmark in prepare_again:
            move(session, job.id, to=JobState.QUEUED, now=now)
        elif job.stage is Stage.INFER and infer_again:
            move(session, job.id, to=JobState.BLOCKED if prepare_again else JobState.QUEUED, now=now)
        elif job.state is JobState.FAILED:
            waits = job.stage is Stage.SCORE and infer_again
            arrows.retry(session, job.id, to=JobState.BLOCKED if waits else JobState.QUEUED, now=now)
    session.connection().execute(
        update(Evaluation).where(col(Evaluation.id) == evaluation).values(failure=None, sentence="", ended_at=None)
    )
    evaluations.advance(session, evaluation, now=now)
    return len(failed)


def _to_prepare_again(jobs: Sequence[Job]) -> set[str]:
    """Benchmarks without a sheet, or with one that a later stage could not use."""
    return {
        job.benchmark
        for job in jobs
        if job.stage is Stage.PREPARE
        and any(
            other.state is JobState.FAILED
            and (other is job or (other.failure is FailureKind.SHEET and other.benchmark in ("", job.benchmark)))
            for other in jobs
        )
    }


def lose(
    session: Session,
    job: Job,
    *,
    failure: FailureKind,
    sentence: str,
    budgets: Budgets,
    now: datetime,
    log_tail: str = "",
    outcome: str = "failed",
    lease_ended: bool = False,
) -> bool:
    """End the current attempt of a job by a failure: queued again while its budget lasts, failed otherwise."""
    assert job.attempt_id is not None
    forgiven = failure is FailureKind.NODE_LOST and _ran_long(session, job, budgets, now=now)
    tally = count(failure, Tally(job.model_failures, 0 if forgiven else job.infrastructure_failures))
    pause = pause_before_retry(failure, tally, budgets)
    if pause is not None:
        return arrows.requeue(
            session,
            job.attempt_id,
            outcome=outcome,
            failure=failure,
            sentence=sentence,
            log_tail=log_tail,
            tally=tally,
            not_before=now + pause if pause else None,
            lease_ended=lease_ended,
            now=now,
        )
    tries = tally.model + tally.infrastructure
    if tries > 1:
        sentence = f"{sentence} (Tried {tries} times.)"
    return arrows.fail(
        session,
        job.attempt_id,
        outcome=outcome,
        failure=failure,
        sentence=sentence,
        log_tail=log_tail,
        tally=tally,
        lease_ended=lease_ended,
        now=now,
    )


def _ran_long(session: Session, job: Job, budgets: Budgets, *, now: datetime) -> bool:
    """Whether the current attempt is one of an infer job, which keeps what it answers, and lived long."""
    started = session.exec(select(Attempt.started_at).where(Attempt.id == job.attempt_id)).first()
    return job.stage is Stage.INFER and started is not None and now - started >= budgets.long_enough


def lock_held(session: Session, attempt: str) -> Job | None:
    """The job that this attempt holds, with its evaluation locked; None when it holds none (any more)."""
    found = session.exec(
        select(Job.id, Job.evaluation_id).join(Attempt, col(Attempt.job_id) == Job.id).where(Attempt.id == attempt)
    ).first()
    if found is None:
        return None
    evaluations.lock(session, found[1])
    statement = select(Job).where(Job.id == found[0], Job.attempt_id == attempt, col(Job.state).in_(arrows.HELD))
    return session.exec(statement.execution_options(populate_existing=True)).first()


def _evaluation(session: Session, evaluation: int) -> Evaluation:
    evaluations.lock(session, evaluation)
    statement = select(Evaluation).where(Evaluation.id == evaluation)
    row = session.exec(statement.execution_options(populate_existing=True)).first()
    if row is None:
        raise NotFound(f"There is no evaluation {evaluation}. `evalyard queue` and `evalyard board` list them.")
    return row
