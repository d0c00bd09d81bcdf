"""What workers' updates change: one is believed only while its attempt is the job's current one. Sends nothing.

A message that is late, doubled or from a replaced attempt changes no row; one that is lost is made up for by the lease.
Updates of one moment are applied in one transaction, which locks what they touch together and in order: evaluations by
number, then workers' health by name, then the sums of speeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlmodel import Session, col, select

from orchestrator import arrows, breaker, evaluations, jobs, results
from orchestrator.budgets import Budgets
from orchestrator.errors import EvalyardError
from orchestrator.jobs import Held
from orchestrator.scheduling import speeds
from orchestrator.suites import Suite
from orchestrator.tables import Attempt
from orchestrator.together import ApplyAlone, together
from orchestrator.wire import Done, FailureKind, InferDone, PrepareDone, ScoreDone, Stage, Update


class Verdict(NamedTuple):
    """What became of a report."""

    accepted: bool
    sentence: str
    is_foreign: bool = False
    """It is about an attempt of another worker than the one that it names, which must not suffer for it."""


BUSY_PAUSE = timedelta(minutes=1)
"""Pause before the next attempt when a worker could not take one, because of what else it runs."""


@dataclass(frozen=True)
class _Completed:
    """What is written at the end of the transaction, about attempts that completed in it."""

    stages: dict[str, Stage] = field(default_factory=dict)
    """By worker."""
    measures: list[tuple[speeds.Kind, speeds.Sums]] = field(default_factory=list)


def apply_update(
    session: Session, report: Update, *, suites: Mapping[str, Suite], now: datetime, budgets: Budgets | None = None
) -> Verdict:
    """Believe what a worker says became of its attempt, if that attempt is the job's current one."""
    return apply_updates(session, [report], suites=suites, now=now, budgets=budgets)[0]


def apply_updates(
    session: Session,
    reports: Sequence[Update],
    *,
    suites: Mapping[str, Suite],
    now: datetime,
    budgets: Budgets | None = None,
) -> list[Verdict]:
    """Believe each of them whose attempt is its job's current one, in this order; one verdict for each.

    Raises:
        ApplyAlone: with several, if one of them ends its attempt by a failure. That locks what the others have passed.
        Overtaken: with several, if a row was not as it was read.
    """
    if len(reports) == 1:
        return _apply_all(session, reports, suites=suites, now=now, budgets=budgets or Budgets())
    if any(report.event == "failed" for report in reports):
        raise ApplyAlone
    with together(session):
        return _apply_all(session, reports, suites=suites, now=now, budgets=budgets or Budgets())


def _apply_all(
    session: Session, reports: Sequence[Update], *, suites: Mapping[str, Suite], now: datetime, budgets: Budgets
) -> list[Verdict]:
    held = jobs.held_by(session, {report.attempt for report in reports})
    attempts = {
        row.id: row for row in session.exec(select(Attempt).where(col(Attempt.id).in_(sorted(held))))
    }  # fmt: skip
    completed = _Completed()
    verdicts = []
    for report in reports:
        found = held.get(report.attempt)
        # An earlier one of these may have ended it.
        if found is None or found.job.attempt_id != report.attempt or not found.job.state.is_held:
            sentence = f"Attempt {report.attempt} holds no job (any more): nothing was changed."
            verdicts.append(Verdict(accepted=False, sentence=sentence))
            continue
        attempt = attempts[report.attempt]
        if attempt.worker != report.worker:
            sentence = f"Attempt {report.attempt} is worker {attempt.worker}'s: nothing was changed."
            verdicts.append(Verdict(accepted=False, sentence=sentence, is_foreign=True))
            continue
        _apply(
            session,
            found,
            attempt,
            report=report,
            suites=suites,
            budgets=budgets,
            completed=completed,
            alone=len(reports) == 1,
            now=now,
        )
        evaluations.advance(session, found.dossier, now=now)
        verdicts.append(Verdict(accepted=True, sentence=f"Job {found.job.id}: {report.event}."))
    if completed.stages:
        breaker.note_successes(session, completed.stages, now=now)
    speeds.add(session, completed.measures)
    return verdicts


def _apply(
    session: Session,
    found: Held,
    attempt: Attempt,
    *,
    report: Update,
    suites: Mapping[str, Suite],
    budgets: Budgets,
    completed: _Completed,
    alone: bool,
    now: datetime,
) -> None:
    if report.progress is not None:
        arrows.note_use(session, attempt.id, report.progress.spent, restarts=report.progress.restarts)
    match report.event:
        case "started":
            # False: a heartbeat or a double of this message has said so before.
            arrows.start(session, found.job, attempt.id, now=now)
        case "released":
            arrows.requeue(
                session,
                found.job,
                attempt.id,
                outcome="preempted" if report.preempted else "released",
                failure=report.failure,
                not_before=now + BUSY_PAUSE if report.failure else None,
                sentence=report.sentence,
                log_tail=report.log_tail,
                now=now,
            )
        case "completed":
            try:
                done = _store(session, found, report, suites=suites, now=now)
            except EvalyardError as error:
                if not alone:
                    raise ApplyAlone from error
                kind = error.kind if isinstance(error, results.Unscorable) else _unexplained(found.job.stage)
                tail = "" if isinstance(error, results.Unscorable) else report.log_tail
                jobs.lose(
                    session, *found, failure=kind, sentence=str(error), log_tail=tail, budgets=budgets, now=now
                )  # fmt: skip
                return
            completed.stages[attempt.worker] = found.job.stage
            if (one := speeds.measured(found.dossier, found.job, attempt, done=done, now=now)) is not None:
                completed.measures.append(one)
        case "failed":
            jobs.lose(
                session,
                *found,
                failure=report.failure or _unexplained(found.job.stage),
                sentence=report.sentence or f"The {found.job.stage.value} stage failed and did not say why.",
                log_tail=report.log_tail,
                budgets=budgets,
                now=now,
            )


def _store(session: Session, found: Held, report: Update, *, suites: Mapping[str, Suite], now: datetime) -> Done:
    """Store the result and complete the job.

    Raises:
        EvalyardError, Unscorable: the result is none; nothing was written.
    """
    dossier, job = found
    done = report.done
    if done is None or done.stage is not (Stage.INFER if job.stage is Stage.CANARY else job.stage):
        raise EvalyardError(f"The {job.stage.value} stage ended without its result.")
    if isinstance(done, ScoreDone):
        results.commit(session, dossier, job, attempt=report.attempt, done=done, suites=suites, now=now)
    assert isinstance(done, PrepareDone | InferDone | ScoreDone)
    # The numbers of a score are rows of their own.
    result = results.finite(done.model_dump(mode="json", exclude={"scores", "outcomes", "weightings"}))
    if isinstance(done, InferDone):
        arrows.note_use(session, report.attempt, results.spent_of(done), restarts=done.restarts)
    arrows.complete(session, job, report.attempt, result=result, now=now)
    if isinstance(done, InferDone) and job.stage is Stage.INFER:
        results.add_cost(session, job.evaluation_id)
        jobs.answer_again(session, dossier, now=now)
    return done


def _unexplained(stage: Stage) -> FailureKind:
    return FailureKind.ENGINE if stage.needs_engine else FailureKind.HARNESS
