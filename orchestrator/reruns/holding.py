"""Which queued jobs of re-runs are not given out now, and why. Reads; never writes.

A plan is paused as a whole; one whose budget of device time is used up only keeps its inference back.
"""

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, or_, select

from orchestrator.lifecycle import EvaluationState, RerunState
from orchestrator.tables import Evaluation, Job, Rerun
from orchestrator.wire import Stage


class Holding(NamedTuple):
    """Plans whose work waits for an operator."""

    wholly: frozenset[int] = frozenset()
    inference: frozenset[int] = frozenset()


def read_holding(session: Session) -> Holding:
    """What is held now: one row is read for each plan that has not ended."""
    rows = session.exec(
        select(Rerun.id, Rerun.state, Rerun.budget_seconds, Rerun.spent_seconds).where(
            or_(
                col(Rerun.state) == RerunState.PAUSED,
                (col(Rerun.state) == RerunState.RUNNING) & (col(Rerun.spent_seconds) >= col(Rerun.budget_seconds)),
            )
        )
    ).all()
    return Holding(
        frozenset(id for id, state, _, _ in rows if id is not None and state is RerunState.PAUSED),
        frozenset(id for id, state, _, _ in rows if id is not None and state is RerunState.RUNNING),
    )


def is_free(holding: Holding) -> ColumnElement[bool] | None:
    """The condition on a query of jobs and their evaluations that leaves out what is held; None where nothing is."""
    if not holding.wholly and not holding.inference:
        return None
    plan = col(Evaluation.rerun_id)
    condition: ColumnElement[bool] = plan.not_in(holding.wholly)
    if holding.inference:
        condition &= plan.not_in(holding.inference) | (col(Job.stage) != Stage.INFER)
    # A canary's job hangs on the evaluation that is its model's, and is none of the plan's.
    return plan.is_(None) | (col(Job.stage) == Stage.CANARY) | condition


def is_spent(rerun: Rerun) -> bool:
    """Whether the plan's inference has held devices for as long as it may."""
    return rerun.budget_seconds is not None and rerun.spent_seconds >= rerun.budget_seconds


def holding_reasons(session: Session, evaluations: Iterable[int]) -> dict[int, str]:
    """Why unfinished evaluations of plans wait for an operator, by evaluation; nothing for all others."""
    rows = session.exec(
        select(Evaluation.id, Evaluation.state, Rerun)
        .join(Rerun, col(Rerun.id) == Evaluation.rerun_id)
        .where(col(Evaluation.id).in_(list(evaluations)))
    ).all()
    found: dict[int, str] = {}
    for evaluation, state, rerun in rows:
        if evaluation is None or EvaluationState(state).is_final:
            continue
        if rerun.state is RerunState.PAUSED:
            found[evaluation] = f"Re-run {rerun.id} is paused: evalyard rerun resume {rerun.id}."
        elif state is EvaluationState.PLANNED and rerun.state.is_final:
            found[evaluation] = (
                f"Re-run {rerun.id} could not compare it. Once the cause is mended: evalyard rerun start {rerun.id}."
            )
        elif state is EvaluationState.PLANNED and rerun.state is RerunState.RUNNING:
            found[evaluation] = f"Waits for its turn in re-run {rerun.id}: evalyard rerun status {rerun.id}."
        elif state is EvaluationState.PLANNED:
            found[evaluation] = f"Waits until re-run {rerun.id} is started: evalyard rerun start {rerun.id}."
        elif rerun.state is RerunState.RUNNING and is_spent(rerun) and state is not EvaluationState.SCORING:
            found[evaluation] = (
                f"The budget of re-run {rerun.id} is used up: evalyard rerun start {rerun.id} --budget N goes on."
            )
    return found
