"""What could not be prepared is asked for again: by start and resume, and by another plan."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from orchestrator import db
from orchestrator.artifacts import ArtifactStore
from orchestrator.lifecycle import EvaluationState, JobState, RerunState
from orchestrator.reruns import plans
from orchestrator.reruns.comparing import Pair, verdict_on
from orchestrator.reruns.holding import holding_reasons
from orchestrator.tables import Job, RerunBenchmark
from orchestrator.wire import FailureKind, Stage
from tests.migrated import migrated_sqlite
from tests.orchestrator.reruns.works import NEW, Sheet, Works
from tests.orchestrator.yard import make_suite


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """What is decided here is decided in Python: one kind of database shows it."""
    path = tmp_path / "evalyard.db"
    path.write_bytes(migrated_sqlite())
    return f"sqlite:///{path}"


BROKEN = Sheet(failure="ModuleNotFoundError: No module named 'x'", kind="harness")
AWAY = Sheet(failure="The dataset is away.", kind="dataset")


def averages(works: Works, old: list[int]) -> list[float | None]:
    return [works.again(one).average for one in old]


def test_a_benchmark_that_could_not_be_compared_is_left_out_and_the_plan_says_how_to_go_on(works: Works) -> None:
    old = works.finished(3)
    works.sheets[NEW, "ARC"] = AWAY
    plan = works.done()
    assert works.verdicts(plan) == {("plain-ARC", "ARC"): "unknown", ("plain-MMLU", "MMLU"): "same"}
    row = works.read(plan)
    assert row.state is RerunState.FINISHED
    assert "No sheet of ARC could be made" in row.sentence
    assert f"evalyard rerun start {plan} asks again" in row.sentence
    assert (row.estimate["carried"], row.estimate["cells"]) == (3, {"unknown": 3, "same": 3})
    for one in old:
        again = works.again(one)
        assert (again.state, again.average) == (EvaluationState.FINISHED, None)
        assert {score.benchmark for score in works.yard.scores(again.id or 0)} == {"MMLU"}
    with db.session(works.yard.engine, read_only=True) as session:
        sentences = session.exec(select(RerunBenchmark.sentence).where(RerunBenchmark.benchmark == "ARC")).all()
    assert [one for one in sentences if "The dataset is away." not in one] == []


def test_start_again_compares_what_could_not_be_compared_once_its_cause_is_mended(works: Works) -> None:
    old = works.finished(3)
    works.sheets[NEW, "ARC"] = BROKEN
    plan = works.done()
    assert averages(works, old) == [None] * 3
    del works.sheets[NEW, "ARC"]
    ordered = len(works.orders)
    works.start(plan)
    works.go_on()
    assert [order.work.stage for order in works.orders[ordered:]] == [Stage.PREPARE]
    assert set(works.verdicts(plan).values()) == {"same"}
    assert averages(works, old) == [works.yard.evaluation(one).average for one in old]
    row = works.read(plan)
    assert (row.state, row.sentence) == (RerunState.FINISHED, "")


def test_start_again_asks_once_while_the_cause_lasts(works: Works) -> None:
    old = works.finished(2)
    works.sheets[NEW, "ARC"] = BROKEN
    plan = works.done()
    for _ in range(2):
        ordered = len(works.orders)
        works.start(plan)
        works.go_on()
        # One try with each of the class's models.
        assert [order.work.stage for order in works.orders[ordered:]] == [Stage.PREPARE] * 2
        assert works.read(plan).state is RerunState.FINISHED
    assert averages(works, old) == [None, None]


def test_resume_asks_again(works: Works) -> None:
    old = works.finished(1)
    works.sheets[NEW, "ARC"] = AWAY
    works.sheets[NEW, "MMLU"] = Sheet(first=4)
    plan = works.planned()
    works.start(plan)
    works.look()
    with db.session(works.yard.engine) as session:
        plans.pause(session, plan)
    del works.sheets[NEW, "ARC"]
    with db.session(works.yard.engine) as session:
        plans.resume(session, plan, now=works.yard.now)
    works.go_on()
    assert works.read(plan).state is RerunState.FINISHED
    assert None not in averages(works, old)


def test_another_plan_to_the_same_version_asks_again(works: Works) -> None:
    old = works.finished(3)
    works.sheets[NEW, "ARC"] = BROKEN
    works.done()
    del works.sheets[NEW, "ARC"]
    second = works.done()
    assert set(works.verdicts(second).values()) == {"same"}
    assert averages(works, old) == [works.yard.evaluation(one).average for one in old]


def test_another_plan_asks_again_for_a_task_that_was_gone(works: Works) -> None:
    old = works.finished(2)
    works.sheets[NEW, "ARC"] = Sheet(failure="There is no task 'arc'.")
    first = works.done()
    assert works.verdicts(first)["plain-ARC", "ARC"] == "incomparable"
    del works.sheets[NEW, "ARC"]
    works.start(first)
    works.go_on()
    assert averages(works, old) == [None, None]
    second = works.done()
    assert works.verdicts(second)["plain-ARC", "ARC"] == "same"
    assert averages(works, old) == [works.yard.evaluation(one).average for one in old]


def test_what_is_new_in_the_suite_and_could_not_be_prepared_is_asked_again_for_every_model(works: Works) -> None:
    old = works.finished(2)
    works.yard.suites = works.runner.suites = {"small": make_suite("ARC", "MMLU", "GPQA", version="2")}
    works.sheets["2", "GPQA"] = AWAY
    plan = works.planned(harness=None)
    works.start(plan)
    works.go_on()
    assert averages(works, old) == [None, None]
    works.start(plan)
    works.go_on()
    assert works.read(plan).state is RerunState.FINISHED
    del works.sheets["2", "GPQA"]
    works.start(plan)
    works.go_on()
    assert None not in averages(works, old)
    assert works.read(plan).state is RerunState.FINISHED


def test_an_evaluation_of_which_nothing_could_be_compared_waits_and_does_not_fail(works: Works) -> None:
    (old,) = works.finished(1)
    works.sheets[NEW, "ARC"] = works.sheets[NEW, "MMLU"] = BROKEN
    plan = works.done()
    again = works.again(old)
    assert (works.read(plan).state, again.state) == (RerunState.FINISHED, EvaluationState.PLANNED)
    with db.session(works.yard.engine, read_only=True) as session:
        assert "could not compare it" in holding_reasons(session, [again.id or 0])[again.id or 0]
    works.sheets.clear()
    works.start(plan)
    works.go_on()
    assert works.again(old).average == works.yard.evaluation(old).average


def test_abandoning_while_a_sheet_is_asked_for_again_keeps_the_scores_that_are_there(works: Works) -> None:
    (old,) = works.finished(1)
    works.sheets[NEW, "ARC"] = BROKEN
    plan = works.done()
    works.start(plan)
    works.look()
    again = works.again(old).id or 0
    assert works.yard.job(again, Stage.PREPARE, "ARC").state is JobState.QUEUED
    with db.session(works.yard.engine) as session:
        plans.abandon(session, plan, now=works.yard.now)
    assert works.yard.evaluation(again).state is EvaluationState.FINISHED
    assert {score.benchmark for score in works.yard.scores(again)} == {"MMLU"}
    assert works.work() == 0


def test_a_model_of_the_class_that_is_gone_is_scored_with_the_sheet_of_another(works: Works) -> None:
    first, second = works.finished(2)
    works.sheets[NEW, "ARC"] = Sheet(code="c2")
    plan = works.plan()
    works.look()
    works.yard.workers()
    for order in works.yard.tick():
        works.yard.report(order.attempt, "failed", failure="gated", sentence="It is gated now.")
    works.go_on()
    works.start(plan)
    works.go_on()
    assert None not in averages(works, [first, second])


@pytest.mark.parametrize("kind", [kind for kind in FailureKind if kind is not FailureKind.TASK_REFUSED])
def test_only_a_refused_task_speaks_of_the_task(kind: FailureKind) -> None:
    row = RerunBenchmark(
        rerun_id=1, sheet_class="c", benchmark="ARC", evaluation_id=1, facts={"job": 1, "tried": [1, 2]}
    )
    fields: dict[str, Any] = {"evaluation_id": 7, "stage": Stage.PREPARE, "benchmark": "ARC"}
    job = Job(**fields, state=JobState.FAILED, failure=kind, sentence="s")
    found = verdict_on(ArtifactStore("memory://"), Pair(row, {}, job))
    assert found is not None
    assert found.kind.value == "unknown"


def with_a_spoilt_sheet(works: Works, *, failure: str | None) -> tuple[int, list[int]]:
    """A plan that is through, but for the first model of its class, whose sheet was damaged and is made again."""
    old = works.finished(2)
    works.sheets[NEW, "ARC"] = Sheet(code="c2")
    plan = works.planned()
    works.start(plan)
    works.look()
    first = works.again(old[0]).id or 0
    works.yard.workers()
    for order in works.yard.tick():
        if order.evaluation == first:
            works.yard.report(order.attempt, "failed", failure="sheet", sentence="The sheet is damaged.")
        else:
            works.answer(order)
    works.go_on()
    works.yard.wait(60)
    works.yard.retry(first)
    if failure is not None:
        works.yard.workers()
        for order in works.yard.tick():
            works.yard.report(order.attempt, "failed", failure=failure, sentence="The dataset is away.")
    return plan, old


def test_a_plan_ends_though_the_first_model_of_a_class_lost_its_sheet_after_it_was_compared(works: Works) -> None:
    plan, old = with_a_spoilt_sheet(works, failure="dataset")
    works.yard.wait(60)
    works.start(plan)
    works.go_on()
    assert works.read(plan).state is RerunState.FINISHED
    assert averages(works, old) == [None, pytest.approx(100 / 3)]


def test_what_comes_while_the_sheet_of_its_class_is_made_again_waits_for_it(works: Works) -> None:
    plan, old = with_a_spoilt_sheet(works, failure=None)
    with db.session(works.yard.engine) as session:
        held = session.exec(select(Job).where(Job.stage == Stage.PREPARE, Job.state == JobState.QUEUED)).one()
        held.not_before = works.yard.now + timedelta(hours=1)
        session.add(held)
    late = works.submit(3)
    works.work()
    works.start(plan)
    works.runner.chose_none.clear()
    works.look()
    assert works.again(late).suite == ""
    works.yard.wait(2 * 3600)
    works.work()
    works.go_on()
    assert None not in averages(works, [*old, late])
    assert works.read(plan).state is RerunState.FINISHED
