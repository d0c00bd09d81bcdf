"""How far a re-run is: how many evaluations of one suite version have their counterpart under another. Reads only.

Counted are those that a board ranks: trials with a limit are no part of a re-run.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, func, select

from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.tables import Attempt, Evaluation, Job, Rerun
from orchestrator.wire import Stage

RUNNING_STATES = (EvaluationState.PREPARING, EvaluationState.RUNNING, EvaluationState.SCORING)


@dataclass(frozen=True)
class Progress:
    """A plan's evaluations, counted."""

    planned: int
    """Finished evaluations of the old version: what there is to do."""
    made: int
    """Of them, those that were taken up."""
    finished: int
    failed: int
    cancelled: int
    running: int
    waiting: int
    whole_before: int
    """Of the planned, those with an average under the old version."""
    whole: int
    """Of those, the ones with an average under the new version as well."""
    device_seconds: float
    """Device time that its inference held so far."""

    @property
    def coverage(self) -> float:
        """Share, 0 to 1, of the old version's averages that the new version has too; 1 where there are none."""
        return self.whole / self.whole_before if self.whole_before else 1.0


def is_planned(suite: str, version: str) -> ColumnElement[bool]:
    """What a re-run makes again: finished evaluations of the version on all documents."""
    return (
        (col(Evaluation.suite) == suite)
        & (col(Evaluation.suite_version) == version)
        & (col(Evaluation.state) == EvaluationState.FINISHED)
        & col(Evaluation.document_limit).is_(None)
        # What others have evaluated is made again only where somebody submits it here.
        & col(Evaluation.source_id).is_(None)
    )


def read_progress(session: Session, rerun: Rerun, *, now: datetime) -> Progress:
    """How far the plan is at this moment."""
    again = aliased(Evaluation)
    counted = session.exec(
        select(again.state, func.count(), func.count(col(again.average)))
        .join(Evaluation, col(Evaluation.id) == again.rerun_of)
        .where(is_planned(rerun.suite, rerun.from_version), again.suite_version == rerun.to_version)
        .group_by(col(again.state))
    ).all()
    states = {state: number for state, number, _ in counted}
    planned, whole_before = session.exec(
        select(func.count(), func.count(col(Evaluation.average))).where(is_planned(rerun.suite, rerun.from_version))
    ).one()
    unstarted = states.get(EvaluationState.PLANNED, 0)
    return Progress(
        planned=planned,
        made=sum(states.values()) - unstarted,
        finished=states.get(EvaluationState.FINISHED, 0),
        failed=states.get(EvaluationState.FAILED, 0),
        cancelled=states.get(EvaluationState.CANCELLED, 0),
        running=sum(states.get(state, 0) for state in RUNNING_STATES),
        waiting=states.get(EvaluationState.QUEUED, 0),
        whole_before=whole_before,
        whole=covered_by(session, rerun.suite, rerun.from_version).get(rerun.to_version, 0),
        device_seconds=device_seconds(session, rerun, now=now),
    )


def covered_by(session: Session, suite: str, version: str) -> dict[str, int]:
    """How many of the version's averages other versions have too, by version."""
    again = aliased(Evaluation)
    counted = session.exec(
        select(again.suite_version, func.count(func.distinct(again.rerun_of)))
        .join(Evaluation, col(Evaluation.id) == again.rerun_of)
        .where(
            is_planned(suite, version),
            col(Evaluation.average).is_not(None),
            col(again.average).is_not(None),
            again.state == EvaluationState.FINISHED,
        )
        .group_by(col(again.suite_version))
    )
    return dict(counted.all())


def device_seconds(session: Session, rerun: Rerun, *, now: datetime) -> float:
    """How long attempts at the plan's inference have held devices, times their number."""
    held = session.exec(
        select(Attempt.started_at, Attempt.ended_at, Attempt.devices)
        .join(Job, col(Job.id) == Attempt.job_id)
        .join(Evaluation, col(Evaluation.id) == Job.evaluation_id)
        .where(Evaluation.rerun_id == rerun.id, Job.stage == Stage.INFER, col(Attempt.started_at).is_not(None))
    )
    return sum(
        max(0.0, ((ended or now) - started).total_seconds()) * devices
        for started, ended, devices in held
        if started is not None
    )


def open_jobs(session: Session, rerun: Rerun) -> int:
    """Jobs of the plan that have not ended."""
    final = [state for state in JobState if state.is_final]
    counted = (
        select(func.count())
        .select_from(Job)
        .join(Evaluation, col(Evaluation.id) == Job.evaluation_id)
        .where(Evaluation.rerun_id == rerun.id, col(Job.state).not_in(final), col(Job.stage) != Stage.CANARY)
    )
    return session.exec(counted).one()
