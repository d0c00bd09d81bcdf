"""The evaluation that makes an old one again: found, made empty, prepared to compare its sheets, cancelled."""

from datetime import datetime

from sqlmodel import Session, col, select

from orchestrator import jobs
from orchestrator.dossiers import open_dossier
from orchestrator.keys import key_of
from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.scheduling import turns
from orchestrator.tables import Evaluation, Event, Job, Rerun, Submission
from orchestrator.wire import Stage


def find_again(session: Session, rerun: Rerun, old: Evaluation) -> Evaluation | None:
    """The evaluation that makes this one again under the plan's version, cancelled ones left out."""
    statement = select(Evaluation).where(
        Evaluation.rerun_of == old.id,
        Evaluation.suite_version == rerun.to_version,
        col(Evaluation.state) != EvaluationState.CANCELLED,
    )
    return session.exec(statement.order_by(col(Evaluation.id))).first()


def make_again(session: Session, rerun: Rerun, old: Evaluation, *, now: datetime) -> Evaluation | None:
    """A new evaluation without jobs; None where the same model has one under that version already.

    That one counts as the old one's counterpart from then on.
    """
    submission = session.exec(select(Submission).where(Submission.id == old.submission_id)).one()
    key = key_of(
        submission, suite=old.suite, suite_version=rerun.to_version, limit=old.document_limit, engine=old.engine
    )
    equal = session.exec(select(Evaluation).where(Evaluation.key == key).with_for_update()).first()
    if equal is not None and equal.state is EvaluationState.CANCELLED:
        equal.key = f"{key}-cancelled-{int(now.timestamp() * 1e6)}"
        session.add(equal)
        session.flush()
    elif equal is not None:
        # It may be another plan's, made from another version of the same: it counts where it is needed now.
        equal.rerun_of = old.id
        session.add(equal)
        session.flush()
        return None
    evaluation = Evaluation(
        submission_id=old.submission_id,
        suite=old.suite,
        suite_version=rerun.to_version,
        engine=old.engine,
        document_limit=old.document_limit,
        key=key,
        state=EvaluationState.PLANNED,
        rerun_id=rerun.id,
        rerun_of=old.id,
        created_at=now,
    )
    session.add(evaluation)
    session.flush()
    details = {"rerun": rerun.id, "again": old.id}
    session.add(Event(at=now, evaluation_id=evaluation.id, name=jobs.EVALUATION_CREATED, details=details))
    return evaluation


def add_prepare(session: Session, rerun: Rerun, old: Evaluation, benchmark: str, *, now: datetime) -> Job | None:
    """Have one benchmark of the old evaluation prepared anew, to compare its sheets; None where that cannot be.

    It is an ordinary job of the evaluation that makes the old one again; nothing follows from it until the plan is
    started.
    """
    again = find_again(session, rerun, old) or make_again(session, rerun, old, now=now)
    if again is None:
        again = find_again(session, rerun, old)
    if again is None or again.id is None:
        return None
    dossier = open_dossier(session, again.id)
    assert dossier is not None
    for job in dossier.jobs:
        if (job.stage, job.benchmark) == (Stage.PREPARE, benchmark):
            return job
    if dossier.evaluation.state is not EvaluationState.PLANNED:
        return None
    turn = turns.boosted(now, before=0, after=rerun.priority)
    made = []
    for stage, state in ((Stage.PREPARE, JobState.QUEUED), (Stage.SCORE, JobState.BLOCKED)):
        made.append(
            Job(
                evaluation_id=again.id,
                stage=stage,
                benchmark=benchmark,
                state=state,
                priority=rerun.priority,
                turn_at=turn,
                created_at=now,
            )
        )
    session.add_all(made)
    session.flush()
    return made[0]


def end_planned(session: Session, rerun: Rerun, *, now: datetime) -> list[str]:
    """Cancel everything of the plan that has not ended; returns the attempts that run."""
    open_states = [state for state in EvaluationState if not state.is_final]
    statement = select(Evaluation.id).where(Evaluation.rerun_id == rerun.id, col(Evaluation.state).in_(open_states))
    stopped: list[str] = []
    for evaluation in session.exec(statement.order_by(col(Evaluation.id))).all():
        assert evaluation is not None
        stopped += jobs.cancel(session, evaluation, now)
    return stopped
