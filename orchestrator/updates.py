"""What a worker's update changes: it is believed only while its attempt is the job's current one. Sends nothing.

A message that is late, doubled or from a replaced attempt changes no row; one that is lost is made up for by the lease.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlmodel import Session

from orchestrator import arrows, breaker, evaluations, jobs, results
from orchestrator.budgets import Budgets
from orchestrator.errors import EvalyardError
from orchestrator.scheduling.speeds import note_speed
from orchestrator.suites import Suite
from orchestrator.tables import Job
from orchestrator.wire import FailureKind, InferDone, PrepareDone, ScoreDone, Stage, Update


class Verdict(NamedTuple):
    """What became of a report."""

    accepted: bool
    sentence: str


BUSY_PAUSE = timedelta(minutes=1)
"""Pause before the next attempt when a worker could not take one, because of what else it runs."""


def apply_update(
    session: Session, report: Update, *, suites: Mapping[str, Suite], now: datetime, budgets: Budgets | None = None
) -> Verdict:
    """Believe what a worker says became of its attempt, if that attempt is the job's current one."""
    held = jobs.lock_held(session, report.attempt)
    if held is None:
        return Verdict(
            accepted=False, sentence=f"Attempt {report.attempt} holds no job (any more): nothing was changed."
        )
    if report.progress is not None:
        arrows.note_use(session, report.attempt, report.progress.spent, restarts=report.progress.restarts)
    match report.event:
        case "started":
            # False: a heartbeat or a double of this message has said so before.
            arrows.start(session, report.attempt, now=now)
        case "released":
            arrows.requeue(
                session,
                report.attempt,
                outcome="preempted" if report.preempted else "released",
                failure=report.failure,
                not_before=now + BUSY_PAUSE if report.failure else None,
                sentence=report.sentence,
                log_tail=report.log_tail,
                now=now,
            )
        case "completed":
            _complete(session, held, report, suites=suites, budgets=budgets or Budgets(), now=now)
        case "failed":
            kind = report.failure or _unexplained(held.stage)
            sentence = report.sentence or f"The {held.stage.value} stage failed and did not say why."
            jobs.lose(
                session,
                held,
                failure=kind,
                sentence=sentence,
                log_tail=report.log_tail,
                budgets=budgets or Budgets(),
                now=now,
            )
    evaluations.advance(session, held.evaluation_id, now=now)
    return Verdict(accepted=True, sentence=f"Job {held.id}: {report.event}.")


def _complete(
    session: Session, job: Job, report: Update, *, suites: Mapping[str, Suite], budgets: Budgets, now: datetime
) -> None:
    """Store the result; a result that is no result ends the attempt as a failure instead."""
    done = report.done
    assert job.attempt_id is not None
    try:
        if done is None or done.stage is not job.stage:
            raise EvalyardError(f"The {job.stage.value} stage ended without its result.")
        if isinstance(done, ScoreDone):
            results.commit(session, job, job.attempt_id, done=done, suites=suites, now=now)
    except results.Unscorable as error:
        jobs.lose(session, job, failure=error.kind, sentence=str(error), budgets=budgets, now=now)
        return
    except EvalyardError as error:
        kind = _unexplained(job.stage)
        jobs.lose(session, job, failure=kind, sentence=str(error), log_tail=report.log_tail, budgets=budgets, now=now)
        return
    assert isinstance(done, PrepareDone | InferDone | ScoreDone)
    # The numbers of a score are rows of their own.
    result = results.finite(done.model_dump(mode="json", exclude={"scores"}))
    if isinstance(done, InferDone):
        arrows.note_use(session, job.attempt_id, results.spent_of(done), restarts=done.restarts)
    arrows.complete(session, job.attempt_id, result=result, now=now)
    breaker.note_success(session, job, job.attempt_id, now=now)
    if isinstance(done, InferDone):
        results.add_cost(session, job.evaluation_id)
        jobs.answer_again(session, job.evaluation_id, now=now)
    # Last, as evaluations of one suite share the row.
    note_speed(session, job, done, now=now)


def _unexplained(stage: Stage) -> FailureKind:
    return FailureKind.ENGINE if stage is Stage.INFER else FailureKind.HARNESS
