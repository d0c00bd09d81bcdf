"""How much of a running plan is under way, and whether it ends now. Reads; never writes."""

from sqlalchemy import exists
from sqlmodel import Session, col, func, select

from orchestrator.lifecycle import EvaluationState, JobState, RerunState
from orchestrator.reruns.choosing import left
from orchestrator.reruns.coverage import RUNNING_STATES, open_jobs
from orchestrator.reruns.holding import is_spent
from orchestrator.tables import Evaluation, Job, Rerun
from orchestrator.wire import Stage


def under_way(session: Session, rerun: Rerun) -> int:
    states = [EvaluationState.QUEUED, *RUNNING_STATES]
    counted = select(func.count()).where(Evaluation.rerun_id == rerun.id, col(Evaluation.state).in_(states))
    return session.exec(counted).one()


def waiting_for_devices(session: Session, rerun: Rerun) -> int:
    """Of those under way, the ones of which nothing can be done but inference that no worker has taken."""
    final = [state for state in JobState if state.is_final]
    theirs = col(Job.evaluation_id) == Evaluation.id
    waits = (col(Job.stage) == Stage.INFER) & (col(Job.state) == JobState.QUEUED)
    goes_on = col(Job.state).not_in([*final, JobState.BLOCKED]) & ~waits
    counted = select(func.count()).where(
        Evaluation.rerun_id == rerun.id,
        col(Evaluation.state).in_([EvaluationState.QUEUED, *RUNNING_STATES]),
        exists().where(theirs & waits),
        ~exists().where(theirs & goes_on),
    )
    return session.exec(counted).one()


def ending(session: Session, rerun: Rerun) -> RerunState | None:
    """The state in which a running plan ends now, if it does. What costs most to find out is looked at last."""
    if is_spent(rerun) and not held_by_workers(session, rerun) and (open_jobs(session, rerun) or left(session, rerun)):
        return RerunState.PAUSED
    if under_way(session, rerun) or left(session, rerun):
        return None
    return RerunState.FINISHED


def held_by_workers(session: Session, rerun: Rerun) -> int:
    """Jobs of the plan that workers have, or that need no device and so go on."""
    busy = (col(Job.state).in_([JobState.DISPATCHED, JobState.RUNNING])) | (
        (col(Job.state) == JobState.QUEUED) & col(Job.stage).not_in([Stage.INFER, Stage.CANARY])
    )
    counted = (
        select(func.count())
        .select_from(Job)
        .join(Evaluation, col(Evaluation.id) == Job.evaluation_id)
        .where(Evaluation.rerun_id == rerun.id, busy)
    )
    return session.exec(counted).one()
