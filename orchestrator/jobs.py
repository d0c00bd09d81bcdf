"""Moves the jobs of an evaluation: makes them, takes them back from workers, cancels, retries.

Each public function is one transaction's work: it first locks the evaluation's row, so that two changes of the same
evaluation follow each other, then moves jobs by `orchestrator.arrows` and draws the consequences (`advance`). What
workers report comes in by `updates` and `heartbeats`. Sends nothing.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import update
from sqlmodel import Session, col, func, select

from orchestrator import arrows, breaker, evaluations
from orchestrator.budgets import Budgets, Tally, count, pause_before_retry
from orchestrator.errors import NotFound, WrongState
from orchestrator.lifecycle import OF_ONE_HOST, EvaluationState, JobState
from orchestrator.scheduling import turns
from orchestrator.tables import Attempt, Evaluation, Event, Job, Submission
from orchestrator.wire import FailureKind, Stage

MOST_ANSWERED_AGAIN = 2
"""How often inference starts again by itself because a score job lacks responses that had been sealed."""

EVALUATION_CREATED = "evaluation_created"
EVALUATION_BOOSTED = "evaluation_boosted"

MOST_REFUSALS = 10
"""Workers that may refuse a job: launched ones have new names each time, and would refuse it for ever."""


def create_jobs(session: Session, evaluation: Evaluation, benchmarks: Sequence[str], *, priority: int = 0) -> None:
    """Give a new evaluation its jobs: prepare and score for each benchmark, and one infer for all of them."""
    if evaluation.id is None:
        session.flush()
    assert evaluation.id is not None
    now = evaluation.created_at
    place = _turn(session, evaluation, priority=priority)

    def add(stage: Stage, state: JobState, benchmark: str = "") -> None:
        assert evaluation.id is not None
        session.add(
            Job(
                evaluation_id=evaluation.id,
                stage=stage,
                benchmark=benchmark,
                state=state,
                priority=priority,
                turn_at=place,
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


def boost(session: Session, evaluation: int, priority: int, now: datetime) -> None:
    """Give what is not yet done of an evaluation another priority, and so another place in the queue.

    Raises:
        NotFound, WrongState: there is no such evaluation, or it has ended.
    """
    row = _evaluation(session, evaluation)
    if row.state.is_final:
        raise WrongState(f"Evaluation {evaluation} is already {row.state.value}: it waits for nothing.")
    before = next(job.priority for job in evaluations.jobs_of(session, evaluation))
    for job in evaluations.jobs_of(session, evaluation):
        moved = turns.boosted(job.turn_at or job.created_at, before=job.priority, after=priority)
        session.connection().execute(update(Job).where(col(Job.id) == job.id).values(priority=priority, turn_at=moved))
    details = {"from": before, "to": priority}
    session.add(Event(at=now, evaluation_id=evaluation, name=EVALUATION_BOOSTED, details=details))
    session.flush()


def _turn(session: Session, evaluation: Evaluation, *, priority: int) -> datetime:
    """The place of a new evaluation in the queue."""
    submission = session.exec(select(Submission).where(Submission.id == evaluation.submission_id)).one()
    others = (
        select(Evaluation.id)
        .join(Submission, col(Submission.id) == Evaluation.submission_id)
        .where(
            col(Evaluation.state).in_([state for state in EvaluationState if not state.is_final]),
            Evaluation.id != evaluation.id,
            Submission.submitter == submission.submitter,
        )
        .limit(turns.MOST_UNFINISHED)
    )
    unfinished = session.exec(select(func.count()).select_from(others.subquery())).one()
    parameters = submission.facts.get("active_parameters") or submission.parameters
    return turns.turn(evaluation.created_at, unfinished=unfinished, parameters=parameters, boost=priority)


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
    ended = lose(session, held, failure=failure, sentence=sentence, budgets=Budgets(), blames_worker=False, now=now)
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
    blames_worker: bool = True,
) -> bool:
    """End the current attempt of a job by a failure: queued again while its budget lasts, failed otherwise."""
    attempt = job.attempt_id
    assert attempt is not None
    refusals = job.refused_by or {}
    if failure in OF_ONE_HOST and job.stage is Stage.INFER and len(refusals) < MOST_REFUSALS:
        return arrows.requeue(
            session,
            attempt,
            outcome="refused",
            failure=failure,
            sentence=sentence,
            log_tail=log_tail,
            refused_by=refusals | _refusal(session, job, failure, sentence),
            now=now,
        )
    forgiven = failure is FailureKind.NODE_LOST and _ran_long(session, job, budgets, now=now)
    tally = count(failure, Tally(job.model_failures, 0 if forgiven else job.infrastructure_failures))
    pause = pause_before_retry(failure, tally, budgets, jitter=_share(attempt))
    if pause is not None:
        ended = arrows.requeue(
            session,
            attempt,
            outcome=outcome,
            failure=failure,
            sentence=sentence,
            log_tail=log_tail,
            tally=tally,
            not_before=now + pause if pause else None,
            lease_ended=lease_ended,
            now=now,
        )
    else:
        tries = tally.model + tally.infrastructure
        ended = arrows.fail(
            session,
            attempt,
            outcome=outcome,
            failure=failure,
            sentence=f"{sentence} (Tried {tries} times.)" if tries > 1 else sentence,
            log_tail=log_tail,
            tally=tally,
            lease_ended=lease_ended,
            now=now,
        )
    if ended and failure is FailureKind.RESPONSES:
        answer_again(session, job.evaluation_id, now=now)
    if ended and blames_worker:
        breaker.note_failure(session, job, attempt, failure=failure, sentence=sentence, now=now)
    return ended


def answer_again(session: Session, evaluation: int, *, now: datetime) -> None:
    """Let inference make again what score jobs lacked: responses that had been sealed and are gone or damaged.

    Twice at most for each of them: then something is wrong that a person must see. While an attempt at inference runs
    nothing is moved: it has read what is there, and this is asked again when it ends.
    """
    jobs = evaluations.jobs_of(session, evaluation)
    infers = [job for job in jobs if job.stage is Stage.INFER]
    lacking = [job for job in jobs if job.state is JobState.FAILED and job.failure is FailureKind.RESPONSES]
    if any(job.state.is_held or job.state in (JobState.FAILED, JobState.CANCELLED) for job in infers):
        return
    for job in lacking:
        tries = select(func.count()).where(Attempt.job_id == job.id, Attempt.failure == FailureKind.RESPONSES)
        if job.id is None or session.exec(tries).one() > MOST_ANSWERED_AGAIN:
            continue
        for infer in infers:
            assert infer.id is not None
            arrows.reopen(session, infer.id, to=JobState.QUEUED, now=now)
        arrows.retry(session, job.id, to=JobState.BLOCKED, now=now)


def _share(attempt: str) -> float:
    """A number from 0 to 1 that is drawn with the attempt's id, and the same whoever asks."""
    return int.from_bytes(hashlib.sha256(attempt.encode()).digest()[:4], "big") / 2**32


def _refusal(session: Session, job: Job, failure: FailureKind, sentence: str) -> dict[str, Any]:
    """What the current attempt's worker says of the job, to be kept with it."""
    worker, boot = session.exec(select(Attempt.worker, Attempt.boot).where(Attempt.id == job.attempt_id)).one()
    said = arrows.clean(sentence)[: arrows.SENTENCE_CHARACTERS]
    return {worker: {"boot": boot, "failure": failure.value, "sentence": said}}


def give_up_refused(session: Session, job: int, *, by: Sequence[str], now: datetime) -> bool:
    """Fail a queued job that all these workers, and with them every one that could hold it, have refused."""
    evaluation = session.exec(select(Job.evaluation_id).where(Job.id == job)).one()
    evaluations.lock(session, evaluation)
    refusals = session.exec(select(Job.refused_by).where(Job.id == job)).one() or {}
    said = {name: refusals[name] for name in by if name in refusals}
    if len(said) < len(by) or not said:
        return False
    first = next(iter(said.values()))
    sentences = {one["sentence"] for one in said.values()}
    sentence = first["sentence"]
    if len(said) > 1:
        told = " ".join(f"{name}: {one['sentence']}" for name, one in said.items()) if len(sentences) > 1 else sentence
        sentence = f"None of the {len(said)} connected workers that could hold it takes it: {', '.join(said)}. {told}"
    failed = arrows.fail_waiting(session, job, failure=FailureKind(first["failure"]), sentence=sentence, now=now)
    evaluations.advance(session, evaluation, now=now)
    return failed


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
