"""An operator's moves of a plan: make it, start it, pause, resume, abandon. Each is one transaction's work.

What follows from them is done step by step by `orchestrator.reruns.runner`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from pydantic import ValidationError
from sqlalchemy import ColumnElement
from sqlmodel import Session, col, func, select

from orchestrator.errors import NotFound, Refused, WrongState
from orchestrator.lifecycle import RerunState
from orchestrator.reruns.comparing import ask_again
from orchestrator.reruns.counterparts import end_planned
from orchestrator.reruns.coverage import is_planned
from orchestrator.scheduling.turns import MOST_BOOST
from orchestrator.suite_versions import add_version, find_version, lock_suite, shown_suite
from orchestrator.suites import Suite, find_suite, meant
from orchestrator.tables import Evaluation, Rerun, Submission, Vote

First = Literal["rank", "votes", "age", "size"]
FIRSTS: tuple[str, ...] = get_args(First)
LOWEST_PRIORITY = -MOST_BOOST
OPEN = [state for state in RerunState if not state.is_final]

HARNESS = re.compile(r"(?:lm[-_ ]eval(?:[-_ ]harness)?)?\s*(?:==|[- ])?\s*v?(\d+(?:\.[0-9A-Za-z]+)*)", re.IGNORECASE)


@dataclass(frozen=True)
class Choices:
    """What an operator may choose when a plan is made or started; None leaves what was chosen before."""

    first: First | None = None
    budget_seconds: int | None = None
    only: Sequence[str] | None = None
    """Empty for every benchmark."""
    coverage_goal: float | None = None
    """0 to 1: the board switches by itself at this coverage; 0 leaves it to an operator."""


def make_plan(
    session: Session,
    suites: Mapping[str, Suite],
    *,
    suite: str,
    harness: str | None = None,
    choices: Choices = Choices(),
    by: str = "",
    now: datetime,
) -> Rerun:
    """A plan to evaluate again what the board shows of a suite: with another harness, or by the suite file's version.

    Raises:
        NotFound, Refused, WrongState: there is no such suite, nothing to do, or a plan that is still open.
    """
    file = find_suite(suites, suite)
    before = shown_suite(session, file)
    after = with_harness(file, harness) if harness else file
    if after.version == before.version:
        raise Refused(
            f"The board of '{suite}' shows version {before.version} already, made with {before.harness}. "
            f"Name another harness (`evalyard harness list`), or give the suite file a new version."
        )
    # Two who plan, or start, at the same moment follow each other, and the second one finds the first one's plan.
    add_version(session, before, now=now)
    lock_suite(session, suite)
    is_open = session.exec(select(Rerun).where(Rerun.suite == suite, col(Rerun.state).in_(OPEN))).first()
    if is_open is not None:
        raise WrongState(
            f"Re-run {is_open.id} of '{suite}' is {is_open.state.value}. End it first: "
            f"evalyard rerun abandon {is_open.id}; what it has made is kept."
        )
    planned = session.exec(select(func.count()).where(is_planned(suite, before.version))).one()
    if not planned:
        # Nothing has recorded a version with another harness yet: it could not be shown.
        instead = (
            f"Name {after.harness} in the suite's file and give that a new version."
            if harness
            else f"Show the other version at once: evalyard rerun switch {suite} --to {after.version}."
        )
        raise Refused(
            f"No evaluation is finished under version {before.version} of '{suite}', so there is nothing to make "
            f"again. {instead}"
        )
    _check(choices, after)
    add_version(session, after, now=now)
    plan = Rerun(
        suite=suite,
        from_version=before.version,
        to_version=after.version,
        priority=LOWEST_PRIORITY,
        made_at=now,
        made_by=by,
    )
    _choose(plan, choices)
    session.add(plan)
    session.flush()
    return plan


def with_harness(suite: Suite, harness: str) -> Suite:
    """The suite as it is with another harness: a version of its own, named after both.

    Raises:
        Refused: this names no version of lm-eval, or the new version's name would be too long.
    """
    named = HARNESS.fullmatch(harness.strip())
    if named is None:
        raise Refused(f"'{harness[:40]}' names no harness. Give lm-eval's version, e.g. --harness 0.4.13.")
    full = f"lm_eval {named[1]}"
    if full == suite.harness:
        return suite
    update = {"harness": full, "version": f"{suite.version}+{full.replace(' ', '-')}"}
    try:
        return Suite.model_validate(suite.model_dump() | update)
    except ValidationError as error:
        # A version that cannot be read again would stop the whole suite.
        raise Refused(
            f"'{suite.name}' cannot have the version '{update['version'][:100]}': a name has at most 60 characters. "
            "Give the suite file a shorter version."
        ) from error


def start(session: Session, rerun: int, *, choices: Choices = Choices(), now: datetime) -> Rerun:
    """Let a plan run, or go on: whatever is missing is taken up. Again is harmless, and may change the choices.

    What could not be prepared before is asked for again: its cause may be mended.

    Raises:
        NotFound, WrongState, Refused: there is no such plan, it is still comparing, or was abandoned.
    """
    lock_suite(session, read(session, rerun).suite)
    plan = read(session, rerun, lock=True)
    after = find_version(session, {}, plan.suite, plan.to_version)
    if after is not None:
        _check(choices, after)
    if plan.state is RerunState.PLANNING:
        raise WrongState(f"Re-run {rerun} is still comparing. See how far: evalyard rerun status {rerun}.")
    if plan.state is RerunState.ABANDONED:
        raise WrongState(f"Re-run {rerun} was abandoned. Make a new plan: what was computed is found again.")
    if plan.state is RerunState.PAUSED and plan.ready_at is None:
        raise WrongState(f"Re-run {rerun} was paused while it compared. First: evalyard rerun resume {rerun}.")
    other = session.exec(
        select(Rerun).where(Rerun.suite == plan.suite, col(Rerun.state).in_(OPEN), Rerun.id != plan.id)
    ).first()
    if other is not None:
        raise WrongState(f"Re-run {other.id} of '{plan.suite}' is {other.state.value}. End that one first.")
    _choose(plan, choices)
    plan.state, plan.sentence, plan.ended_at = RerunState.RUNNING, "", None
    plan.started_at, plan.asked_at = plan.started_at or now, now
    ask_again(session, plan)
    return _kept(session, plan)


def pause(session: Session, rerun: int) -> Rerun:
    """Give out nothing of a plan any more; what runs is not disturbed.

    Raises:
        NotFound, WrongState: there is no such plan, or it does nothing that could be paused.
    """
    plan = read(session, rerun, lock=True)
    if plan.state not in (RerunState.PLANNING, RerunState.RUNNING):
        raise WrongState(f"Re-run {rerun} is {plan.state.value}: there is nothing to pause.")
    plan.state, plan.sentence = RerunState.PAUSED, "Paused by an operator."
    return _kept(session, plan)


def resume(session: Session, rerun: int, *, now: datetime) -> Rerun:
    """Let a paused plan go on where it was, and ask again for what could not be prepared before.

    Raises:
        NotFound, WrongState: there is no such plan, or it is not paused.
    """
    plan = read(session, rerun, lock=True)
    if plan.state is not RerunState.PAUSED:
        raise WrongState(f"Re-run {rerun} is {plan.state.value}, not paused.")
    plan.state = RerunState.RUNNING if plan.started_at else RerunState.PLANNING
    plan.sentence, plan.asked_at = "", now
    ask_again(session, plan)
    return _kept(session, plan)


def abandon(session: Session, rerun: int, *, now: datetime) -> tuple[Rerun, list[str]]:
    """End a plan for good: what has not ended is cancelled, what has is kept. Returns the attempts to stop as well.

    Raises:
        NotFound, WrongState: there is no such plan, or it has ended.
    """
    plan = read(session, rerun, lock=True)
    if plan.state.is_final:
        raise WrongState(f"Re-run {rerun} is already {plan.state.value}.")
    plan.state, plan.ended_at, plan.sentence = RerunState.ABANDONED, now, "Abandoned by an operator."
    return _kept(session, plan), end_planned(session, plan, now=now)


def read(session: Session, rerun: int, *, lock: bool = False) -> Rerun:
    """The plan of this number.

    Raises:
        NotFound: there is none.
    """
    statement = select(Rerun).where(Rerun.id == rerun).execution_options(populate_existing=True)
    found = session.exec(statement.with_for_update() if lock else statement).first()
    if found is None:
        raise NotFound(f"There is no re-run {rerun}. `evalyard rerun list` lists them.")
    return found


def list_plans(session: Session, *, suite: str | None = None, limit: int = 50) -> list[Rerun]:
    """The latest plans first."""
    statement = select(Rerun).order_by(col(Rerun.id).desc()).limit(limit)
    if suite:
        statement = statement.where(Rerun.suite == suite)
    return list(session.exec(statement).all())


def in_order(session: Session, rerun: Rerun) -> list[int]:
    """The plan's evaluations in the order in which they take their turn."""
    votes = select(func.count()).where(Vote.revision == Submission.revision).correlate(Submission).scalar_subquery()
    orders: dict[str, tuple[ColumnElement[Any], ...]] = {
        "rank": (col(Evaluation.average).desc().nulls_last(),),
        "size": (col(Submission.parameters).asc().nulls_last(),),
        "age": (col(Evaluation.created_at).asc(),),
        "votes": (votes.desc(), col(Evaluation.average).desc().nulls_last()),
    }
    statement = (
        select(Evaluation.id)
        .join(Submission, col(Submission.id) == Evaluation.submission_id)
        .where(is_planned(rerun.suite, rerun.from_version))
    )
    found = session.exec(statement.order_by(*orders.get(rerun.first, ()), col(Evaluation.id)))
    return [evaluation for evaluation in found if evaluation is not None]


def _check(choices: Choices, suite: Suite) -> None:
    if choices.first is not None and choices.first not in FIRSTS:
        raise Refused(f"'{choices.first[:40]}' is no order. Choose one of {', '.join(FIRSTS)}.")
    if choices.coverage_goal is not None and not 0.0 <= choices.coverage_goal <= 1.0:
        raise Refused("A coverage lies between 0 and 100 %. 0 leaves the switch to an operator.")
    if choices.budget_seconds is not None and choices.budget_seconds < 0:
        raise Refused("A budget is not negative. 0 lifts it.")
    names = [benchmark.name for benchmark in suite.benchmarks]
    for name in choices.only or ():
        if name not in names:
            raise NotFound(f"Suite '{suite.name}' has no benchmark '{name[:60]}'.{meant(name, names)}")


def _choose(plan: Rerun, choices: Choices) -> None:
    if choices.first is not None:
        plan.first = choices.first
    if choices.budget_seconds is not None:
        plan.budget_seconds = choices.budget_seconds or None
    if choices.only is not None:
        plan.only = list(choices.only) or None
    if choices.coverage_goal is not None:
        plan.coverage_goal = choices.coverage_goal or None


def _kept(session: Session, plan: Rerun) -> Rerun:
    session.add(plan)
    session.flush()
    return plan
