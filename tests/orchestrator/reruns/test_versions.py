"""Versions of suites: recorded, shown, switched and switched back."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from orchestrator import db
from orchestrator.errors import NotFound, WrongState
from orchestrator.reruns import plans, switching
from orchestrator.reruns.coverage import read_progress
from orchestrator.suite_versions import pick_suite, record_suites, score_digest, shown_suite, versions_of
from orchestrator.suites import SuiteError
from orchestrator.wire import Stage
from tests.orchestrator.reruns.works import NEW, OLD, Sheet, Works
from tests.orchestrator.yard import Yard, make_suite


def record(engine: Engine, *suites: object) -> None:
    with db.session(engine) as session:
        record_suites(session, suites, now=Yard(engine).now)  # type: ignore[arg-type]


def test_a_file_that_changed_under_the_same_version_stops_the_start(engine: Engine) -> None:
    suite = make_suite("ARC", "MMLU")
    record(engine, suite)
    shots = suite.benchmarks[0].model_copy(update={"num_fewshot": 3})
    changed = suite.model_copy(update={"benchmarks": (shots, suite.benchmarks[1]), "harness": "lm_eval 0.4.14"})
    with pytest.raises(SuiteError, match=r"same version number 1: harness, benchmark 'ARC' differ.*a new version"):
        record(engine, changed)


def test_the_texts_of_a_suite_may_be_mended(engine: Engine) -> None:
    suite = make_suite("ARC")
    record(engine, suite)
    told = suite.benchmarks[0].model_copy(update={"description": "Told better."})
    better = suite.model_copy(update={"title": "Better", "known_problems": ("One.",), "benchmarks": (told,)})
    assert score_digest(better) == score_digest(suite)
    record(engine, better)
    with db.session(engine, read_only=True) as session:
        (row,) = versions_of(session, better).known
    assert row.record["title"] == "Better"


def test_a_newer_file_is_shown_by_itself_only_while_nothing_was_made_under_the_older(works: Works) -> None:
    newer, newest = make_suite("ARC", "MMLU", version="2"), make_suite("ARC", "MMLU", version="3")
    record(works.yard.engine, newer)
    assert works.history() == ["1", "2"]
    works.yard.suites = {"small": newer}
    works.submit(1)
    record(works.yard.engine, newest)
    assert works.history() == ["1", "2"]
    with db.session(works.yard.engine, read_only=True) as session:
        assert shown_suite(session, newest).version == "2"


def test_an_evaluation_of_an_older_version_is_still_run_and_scored_by_it(works: Works) -> None:
    old = works.submit(1)
    works.yard.suites = {"small": make_suite("ARC", "MMLU", "GPQA", version="2")}
    works.work()
    assert works.yard.evaluation(old).average is not None
    assert works.yard.evaluation(old).suite_version == OLD


def test_a_board_holds_no_evaluation_of_another_version(works: Works) -> None:
    (old,) = works.finished(1)
    works.switch(works.done())
    board = works.board()
    assert [row.evaluation for row in (*board.ranked, *board.apart)] == [works.again(old).id]


def test_switching_is_whole_and_going_back_is_exact(works: Works) -> None:
    works.finished(3)
    works.sheets[NEW, "ARC"] = Sheet(code="c2")
    works.accuracy[NEW, "ARC"] = 0.9
    before = works.shown()
    plan = works.done()
    assert works.shown() == before
    works.switch(plan)
    after = works.shown()
    assert after["suite_version"] == NEW
    assert {row.suite_version for row in (*after["ranked"], *after["apart"])} == {NEW}
    works.back()
    assert works.shown() == before
    works.back()
    assert works.shown() == after
    assert works.history() == [OLD, NEW, OLD, NEW]


def test_the_board_switches_by_itself_at_the_goal_and_not_before(works: Works) -> None:
    works.finished(2)
    works.sheets[NEW, "ARC"] = Sheet(first=4)
    plan = works.planned(coverage_goal=1.0)
    works.start(plan)
    works.look()
    works.yard.workers()
    (order,) = works.yard.tick()
    works.answer(order)
    for scores in works.yard.tick():
        if scores.work.stage is Stage.SCORE:
            works.answer(scores)
        else:
            works.yard.report(scores.attempt, "released")
    works.look()
    with db.session(works.yard.engine, read_only=True) as session:
        assert read_progress(session, plans.read(session, plan), now=works.yard.now).coverage == 0.5
    assert works.history() == [OLD]
    works.go_on()
    assert works.history() == [OLD, NEW]


def test_a_board_below_its_goal_stays(works: Works) -> None:
    works.finished(2)
    works.sheets[NEW, "ARC"] = Sheet(failure="There is no such task.")
    works.done(coverage_goal=0.5)
    assert works.history() == [OLD]


def test_an_operator_who_went_back_is_not_overruled(works: Works) -> None:
    works.finished(1)
    plan = works.done(coverage_goal=0.5)
    assert works.history() == [OLD, NEW]
    works.back()
    works.start(plan)
    works.go_on()
    assert works.history() == [OLD, NEW, OLD]


def test_switches_that_make_no_sense_are_refused(works: Works) -> None:
    works.finished(1)
    plan = works.planned()
    with db.session(works.yard.engine) as session:
        suites, now = works.yard.suites, works.yard.now
        with pytest.raises(WrongState, match="never shown another"):
            switching.back(session, suites, suite="small", now=now)
        with pytest.raises(WrongState, match="an empty board"):
            switching.switch_to_plan(session, suites, plans.read(session, plan), now=now)
        with pytest.raises(WrongState, match="shows version 1 already"):
            switching.switch(session, suites, suite="small", version=OLD, now=now)
        with pytest.raises(NotFound, match="no version '7'"):
            switching.switch(session, suites, suite="small", version="7", now=now)
        with pytest.raises(NotFound, match="has no version '7'"):
            pick_suite(session, suites["small"], "7")


def test_new_submissions_go_to_the_version_that_is_shown(works: Works) -> None:
    works.finished(1)
    works.switch(works.done())
    with db.session(works.yard.engine, read_only=True) as session:
        shown = shown_suite(session, works.yard.suites["small"])
    assert (shown.version, shown.harness) == (NEW, "lm_eval 0.4.14")
    works.yard.wait(timedelta(hours=1).total_seconds())
    record(works.yard.engine, works.yard.suites["small"])
    assert works.history() == [OLD, NEW]
