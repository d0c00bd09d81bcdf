"""Moves one job along one arrow of its life-cycle: a guarded UPDATE and an event row for each. Knows no other job.

The only writer of `Job.state` and `Attempt`, by the statements of `orchestrator.moves`. Every function returns whether
the row was moved: False means that the job was no longer where the arrow begins, or that the attempt is not its current
one, and then nothing was changed. The `Job` that is passed is the row as this transaction read it; a move keeps it
true, so that it need not be read again.
What follows from a move for the rest of the evaluation is for `orchestrator.jobs`.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import update
from sqlmodel import Session, col

from orchestrator import moves
from orchestrator.budgets import Tally
from orchestrator.lifecycle import JobState
from orchestrator.tables import Attempt, Job
from orchestrator.together import waiting
from orchestrator.wire import FailureKind, Progress, Spent

JOB_QUEUED = "job_queued"
JOB_CARRIED = "job_carried"
JOB_CLAIMED = "job_claimed"
JOB_STARTED = "job_started"
JOB_COMPLETED = "job_completed"
JOB_REQUEUED = "job_requeued"
JOB_FAILED = "job_failed"
JOB_CANCELLED = "job_cancelled"
JOB_RETRIED = "job_retried"

HELD = tuple(state for state in JobState if state.is_held)
WAITING = (JobState.BLOCKED, JobState.QUEUED)
LOG_TAIL_CHARACTERS = 16_000
SENTENCE_CHARACTERS = 2_000
MOST_RESTARTS = 20
"""Sentences kept of an attempt's restarts, the last ones."""


def queue(
    session: Session,
    job: Job,
    *,
    identity: dict[str, Any] | None = None,
    requests: int | None = None,
    longest: int | None = None,
    now: datetime,
) -> bool:
    """blocked → queued: what the job waited for is there."""
    values: dict[str, Any] = {"state": JobState.QUEUED}
    if identity is not None:
        values["identity"] = identity
    if requests is not None:
        values |= {"requests_total": requests, "longest": longest}
    moved = moves.move(session, job, (JobState.BLOCKED,), values)
    return moved and moves.record(session, JOB_QUEUED, now, job=job)


def carry(session: Session, job: Job, *, result: dict[str, Any], now: datetime) -> bool:
    """blocked → completed: what it would make is carried over from another evaluation, as `result` says."""
    values = {"state": JobState.COMPLETED, "result": result, "ended_at": now}
    moved = moves.move(session, job, (JobState.BLOCKED,), values)
    return moved and moves.record(session, JOB_CARRIED, now, job=job)


def claim(
    session: Session,
    job: Job,
    *,
    attempt: str,
    worker: str,
    boot: str,
    devices: int = 1,
    lease_until: datetime,
    identity: dict[str, Any] | None = None,
    now: datetime,
) -> bool:
    """queued → dispatched, with a new attempt that holds the job until its lease ends."""
    values: dict[str, Any] = {
        "state": JobState.DISPATCHED,
        "attempt_id": attempt,
        "not_before": None,
        "requests_done": 0,
        "benchmarks_done": None,
        "phase": "",
    }
    if identity is not None:
        values["identity"] = identity
    if not moves.move(session, job, (JobState.QUEUED,), values):
        return False
    assert job.id is not None
    made: dict[str, Any] = {
        "id": attempt,
        "job_id": job.id,
        "worker": worker,
        "boot": boot,
        "devices": devices,
        "dispatched_at": now,
        "lease_until": lease_until,
    }
    if (later := waiting(session)) is not None:
        texts = {"outcome": "", "sentence": "", "log_tail": ""}
        later.add(session, moves.NEW_ATTEMPT, made | texts, row=("attempt", attempt))
    else:
        session.add(Attempt(**made))
    return moves.record(session, JOB_CLAIMED, now, job=job, attempt=attempt, worker=worker)


def start(session: Session, job: Job, attempt: str, *, now: datetime) -> bool:
    """dispatched → running."""
    if not moves.move(session, job, (JobState.DISPATCHED,), {"state": JobState.RUNNING}, attempt=attempt):
        return False
    moves.change_attempt(session, attempt, {"started_at": now})
    return moves.record(session, JOB_STARTED, now, job=job, attempt=attempt)


def touch(session: Session, job: Job, attempt: str, *, progress: Progress, boot: str, lease_until: datetime) -> bool:
    """Extend the lease, and note how far the attempt is and which boot runs it. No arrow, but the same fence."""
    values: dict[str, Any] = {"phase": clean(progress.phase)[:200]}
    if progress.benchmarks_done:
        values["benchmarks_done"] = [clean(name) for name in progress.benchmarks_done]
    if progress.total:
        values |= {"requests_done": progress.done, "requests_total": progress.total}
    if not moves.change_job(
        session, moves.job_update(tuple(values), HELD, "one"), job, values, sources=HELD, attempt=attempt
    ):
        return False
    changes = {"lease_until": lease_until, "boot": boot} | _use(progress.spent, progress.restarts)
    return moves.change_attempt(session, attempt, changes)


def note_use(session: Session, attempt: str, spent: Spent, *, restarts: Sequence[str]) -> bool:
    """Note what the attempt's engines have used and why one was started again. No arrow; of an open attempt only."""
    return moves.change_attempt(session, attempt, _use(spent, restarts))


def shorten_leases(session: Session, *, to: datetime) -> int:
    """Let no lease end later than this: the clock that made it later was set back. Returns how many were shortened."""
    session.flush()
    late = update(Attempt).where(col(Attempt.ended_at).is_(None), col(Attempt.lease_until) > to)
    return session.connection().execute(late.values(lease_until=to)).rowcount


def complete(session: Session, job: Job, attempt: str, *, result: dict[str, Any], now: datetime) -> bool:
    """dispatched or running → completed. From dispatched, because the message of the start may be lost."""
    # The last heartbeat may still be on its way: what is complete shows all of its requests as done.
    values = {
        "state": JobState.COMPLETED,
        "result": result,
        "ended_at": now,
        "failure": None,
        "sentence": "",
        "requests_done": job.requests_total,
    }
    if not moves.move(session, job, HELD, values, attempt=attempt):
        return False
    moves.end_attempt(session, attempt, outcome="completed", now=now)
    return moves.record(session, JOB_COMPLETED, now, job=job, attempt=attempt)


def requeue(
    session: Session,
    job: Job,
    attempt: str,
    *,
    outcome: str,
    now: datetime,
    not_before: datetime | None = None,
    tally: Tally | None = None,
    refused_by: dict[str, Any] | None = None,
    failure: FailureKind | None = None,
    sentence: str = "",
    log_tail: str = "",
    lease_ended: bool = False,
) -> bool:
    """dispatched or running → queued: the attempt is over and another one will be made.

    `tally` charges the job's budgets; without it the attempt costs nothing. `refused_by` are the workers, this one
    among them, whose hosts lack what it needs. With `lease_ended` the move is only made if no heartbeat has extended
    the lease since it was looked at.
    """
    sentence, log_tail = clean(sentence), clean(log_tail)[-LOG_TAIL_CHARACTERS:]
    if lease_ended and not moves.end_lease(session, attempt, now=now):
        return False
    values: dict[str, Any] = {
        "state": JobState.QUEUED,
        "attempt_id": None,
        "not_before": not_before,
        "sentence": sentence,
        "phase": "",
    }
    if log_tail:
        values["log_tail"] = log_tail
    if tally is not None:
        values |= {"model_failures": tally.model, "infrastructure_failures": tally.infrastructure}
    if refused_by is not None:
        values["refused_by"] = refused_by
    if not moves.move(session, job, HELD, values, attempt=attempt):
        return False
    moves.end_attempt(session, attempt, outcome=outcome, failure=failure, sentence=sentence, log_tail=log_tail, now=now)
    details = {"outcome": outcome, "failure": failure, "sentence": sentence}
    return moves.record(session, JOB_REQUEUED, now, job=job, attempt=attempt, **details)


def fail(
    session: Session,
    job: Job,
    attempt: str,
    *,
    outcome: str,
    failure: FailureKind,
    sentence: str,
    now: datetime,
    tally: Tally,
    log_tail: str = "",
    lease_ended: bool = False,
) -> bool:
    """dispatched or running → failed: no further attempt will be made by itself."""
    sentence, log_tail = clean(sentence), clean(log_tail)[-LOG_TAIL_CHARACTERS:]
    if lease_ended and not moves.end_lease(session, attempt, now=now):
        return False
    values: dict[str, Any] = {
        "state": JobState.FAILED,
        "failure": failure,
        "sentence": sentence,
        "log_tail": log_tail,
        "model_failures": tally.model,
        "infrastructure_failures": tally.infrastructure,
        "ended_at": now,
        "phase": "",
    }
    if not moves.move(session, job, HELD, values, attempt=attempt):
        return False
    moves.end_attempt(session, attempt, outcome=outcome, failure=failure, sentence=sentence, log_tail=log_tail, now=now)
    return moves.record(session, JOB_FAILED, now, job=job, attempt=attempt, failure=failure, sentence=sentence)


def fail_waiting(session: Session, job: Job, *, failure: FailureKind, sentence: str, now: datetime) -> bool:
    """blocked or queued → failed: what the job would need will never be there."""
    values = {"state": JobState.FAILED, "failure": failure, "sentence": clean(sentence), "ended_at": now}
    moved = moves.move(session, job, WAITING, values)
    return moved and moves.record(session, JOB_FAILED, now, job=job, failure=failure, sentence=clean(sentence))


def cancel(session: Session, job: Job, *, sentence: str, now: datetime) -> bool:
    """Any state that is not final → cancelled, while it is held by whom it was when it was read."""
    attempt = job.attempt_id
    values = {"state": JobState.CANCELLED, "failure": FailureKind.CANCELLED, "sentence": sentence, "ended_at": now}
    if not moves.move(session, job, tuple(state for state in JobState if not state.is_final), values, attempt=attempt):
        return False
    if attempt is not None:
        moves.end_attempt(
            session, attempt, outcome="cancelled", failure=FailureKind.CANCELLED, sentence=sentence, now=now
        )
    return moves.record(session, JOB_CANCELLED, now, job=job, attempt=attempt)


def retry(session: Session, job: Job, *, to: JobState, now: datetime) -> bool:
    """failed → queued or blocked, by a person: with fresh budgets."""
    return _revive(session, job, (JobState.FAILED,), to, now=now)


def reopen(session: Session, job: Job, *, to: JobState, now: datetime) -> bool:
    """completed → queued or blocked, by a person: a later job failed for want of what this one should have made."""
    return _revive(session, job, (JobState.COMPLETED,), to, now=now)


def clean(text: str) -> str:
    """Text that both databases take: PostgreSQL knows no NUL, and neither knows half of a surrogate pair."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _revive(session: Session, job: Job, sources: tuple[JobState, ...], to: JobState, *, now: datetime) -> bool:
    values: dict[str, Any] = {
        "state": to,
        "attempt_id": None,
        "not_before": None,
        "model_failures": 0,
        "infrastructure_failures": 0,
        "refused_by": None,
        "benchmarks_done": None,
        "failure": None,
        "sentence": "",
        "ended_at": None,
    }
    moved = moves.move(session, job, sources, values)
    return moved and moves.record(session, JOB_RETRIED, now, job=job, to=to)


def _use(spent: Spent, restarts: Sequence[str]) -> dict[str, Any]:
    return {
        # PostgreSQL's JSON holds neither NaN nor infinities.
        "spent": {name: value for name, value in spent if isinstance(value, int) or math.isfinite(value)},
        "restarts": [clean(sentence)[:SENTENCE_CHARACTERS] for sentence in restarts[-MOST_RESTARTS:]],
    }
