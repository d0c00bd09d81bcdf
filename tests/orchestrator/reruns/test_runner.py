"""What a running plan takes up, holds and locks while it goes on."""

import threading
from typing import Any

import pytest
from sqlalchemy import Engine, event, text
from sqlmodel import select

from orchestrator import db
from orchestrator.errors import WrongState
from orchestrator.lifecycle import EvaluationState, RerunState
from orchestrator.reruns import plans
from orchestrator.suite_versions import record_suites
from orchestrator.tables import Rerun
from orchestrator.wire import Order, Stage
from tests.orchestrator.reruns.works import NEW, Sheet, Works
from tests.orchestrator.yard import Yard, make_suite
from tests.services import wait_until


def only_for(works: Works, changed: int) -> None:
    """ARC asks anew under the new version of one model alone."""
    answer = works.answer

    def answer_one(order: Order) -> None:
        of = works.yard.evaluation(order.evaluation).rerun_of
        if order.work.stage is Stage.PREPARE and order.work.benchmark.name == "ARC" and of == changed:
            works.sheets[NEW, "ARC"] = Sheet(first=4)
        answer(order)
        works.sheets.pop((NEW, "ARC"), None)

    works.answer = answer_one  # type: ignore[method-assign]  # the harness that is played, not our code


@pytest.mark.parametrize("budget", [1, None])
def test_what_needs_no_device_is_done_though_everything_else_waits_for_one(works: Works, budget: int | None) -> None:
    waits, free = works.submit(1, of_class="x"), works.submit(2, of_class="y")
    works.work()
    works.runner.at_once = 1
    only_for(works, waits)
    plan = works.planned(first="age", budget_seconds=budget)
    works.start(plan)
    works.look()
    works.yard.workers()
    (order,) = works.yard.tick()
    assert (order.work.stage, order.evaluation) == (Stage.INFER, works.again(waits).id)
    works.yard.report(order.attempt, "started")
    works.yard.wait(5)
    works.yard.report(order.attempt, "released")
    for _ in range(4):
        works.look()
    assert works.again(free).average == works.yard.evaluation(free).average
    assert works.again(waits).average is None
    assert works.read(plan).state is (RerunState.PAUSED if budget else RerunState.RUNNING)


def test_a_score_that_another_environment_judged_is_no_member_of_its_class(works: Works) -> None:
    """One version of the harness may have been made twice, with other packages."""
    first, second = works.submit(1), works.submit(2)
    works.scored_by[second] = "math-verify 0.8"
    works.work()
    works.accuracy[NEW, "ARC"] = works.accuracy[NEW, "MMLU"] = 0.75
    plan = works.done()
    assert set(works.verdicts(plan).values()) == {"same"}
    assert works.again(first).average == works.yard.evaluation(first).average
    again = works.again(second)
    assert works.stages(again.id or 0) == [Stage.SCORE, Stage.SCORE]
    assert again.average == pytest.approx(100 * 0.5 / 0.75)


def test_sheets_of_an_older_worker_are_scored_again_from_their_responses(works: Works) -> None:
    works.sheets["1", "ARC"] = works.sheets["1", "MMLU"] = Sheet(judged_by="")
    old = works.finished(2)
    plan = works.done()
    assert set(works.verdicts(plan).values()) == {"score"}
    for one in old:
        assert set(works.stages(works.again(one).id or 0)) <= {Stage.PREPARE, Stage.SCORE}


def test_a_plan_that_raises_keeps_no_other_from_going_on(works: Works) -> None:
    (old,) = works.finished(1)
    damaged = make_suite("ARC", version="1").model_copy(update={"name": "damaged"})
    works.yard.suites = works.runner.suites = {**works.yard.suites, "damaged": damaged}
    with db.session(works.yard.engine) as session:
        record_suites(session, works.yard.suites.values(), now=works.yard.now)
        # Versions that nobody recorded: the suite of this plan cannot be read.
        session.add(
            Rerun(
                suite="damaged", from_version="1", to_version="gone", made_at=works.yard.now, state=RerunState.RUNNING
            )
        )
    works.done()
    assert works.again(old).state is EvaluationState.FINISHED


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # PostgreSQL's readers lock nothing
def test_a_plan_whose_last_inference_runs_holds_the_database_for_moments_only(works: Works) -> None:
    works.finished(2)
    works.sheets[NEW, "ARC"] = Sheet(first=4)
    plan = works.planned(coverage_goal=1.0)
    works.start(plan)
    works.look()
    works.yard.workers()
    (order,) = works.yard.tick()
    works.yard.report(order.attempt, "started")
    works.look()
    writing = False
    held: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        nonlocal writing
        if statement.startswith("BEGIN"):
            writing = "IMMEDIATE" in statement
        elif writing:
            held.append(statement)

    event.listen(works.yard.engine, "before_cursor_execute", note)
    works.look()
    event.remove(works.yard.engine, "before_cursor_execute", note)
    assert held
    # What grows with the suite is read before: all scores, all evaluations, all attempts.
    assert [one for one in held if "count(" in one or "job.stage" in one or "attempt" in one] == []


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite's writers follow each other
def test_evaluations_are_locked_in_the_order_of_their_numbers(works: Works) -> None:
    works.finished(3)
    with db.session(works.yard.engine) as session:
        session.execute(text("update evaluation set average = id"))  # the best of the board has the highest number
    plan = works.planned()
    works.start(plan)
    locked: list[int] = []
    orders: list[list[int]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *more: Any) -> None:
        if "FROM evaluation" in statement and "FOR UPDATE" in statement:
            locked.extend(value for value in parameters.values() if isinstance(value, int) and value not in locked)

    def end(connection: Any) -> None:
        orders.append(list(locked))
        locked.clear()

    event.listen(works.yard.engine, "before_cursor_execute", note)
    event.listen(works.yard.engine, "commit", end)
    works.look()
    event.remove(works.yard.engine, "before_cursor_execute", note)
    event.remove(works.yard.engine, "commit", end)
    assert max(map(len, orders)) >= 3
    assert [order for order in orders if order != sorted(order)] == []


def test_two_who_plan_at_once_make_one_plan(works: Works, engine: Engine) -> None:
    works.finished(1)
    other = Works(Yard(engine, now=works.yard.now), works.store)
    refused: list[str] = []

    def plan_too() -> None:
        try:
            other.plan(harness="0.4.15")
        except WrongState as error:
            refused.append(str(error))

    thread = threading.Thread(target=plan_too)
    with db.session(engine) as session:
        plans.make_plan(session, works.yard.suites, suite="small", harness="0.4.14", now=works.yard.now)
        thread.start()
        if engine.dialect.name == "postgresql":
            waits = text(
                "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            )
            # Each look in a transaction of its own: within one PostgreSQL shows what it saw first.
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as watching:
                wait_until(
                    lambda: bool(watching.execute(waits).all()) or not thread.is_alive(),
                    "the other one waits",
                    seconds=30,
                )
    thread.join(60)
    assert len(refused) == 1
    with db.session(engine, read_only=True) as session:
        assert len(session.exec(select(Rerun)).all()) == 1
