"""What changed that scores depend on, and what the hub does about it by itself."""

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlmodel import select

from orchestrator import db
from orchestrator.lifecycle import RerunState
from orchestrator.notices import events
from orchestrator.reruns.policy import Kind, Planned, Policy, SuiteFacts, costs_no_device, notice_changes
from orchestrator.reruns.watch import BY_POLICY, Watch, read_changes
from orchestrator.suite_versions import record_suites
from orchestrator.suites import Suite
from orchestrator.tables import Notice, Rerun, Score
from tests.orchestrator.yard import Yard, make_suite

SMALL = make_suite("ARC", "MMLU")
NEWER = make_suite("ARC", "MMLU", version="2")


def facts(**fields: Any) -> dict[str, SuiteFacts]:
    return {"small": SuiteFacts(**({"shown": SMALL, "file": SMALL, "finished": 3} | fields))}


def noticed(
    suites: Mapping[str, SuiteFacts], *harnesses: str, engines: Mapping[str, str] | None = None
) -> list[tuple[Kind, str | None]]:
    changes = notice_changes(suites, harnesses=frozenset(harnesses), engines=engines or {})
    return [(change.kind, change.harness) for change in changes]


def test_of_newer_harnesses_the_newest_is_planned_for_by_number_and_not_by_letters() -> None:
    there = ("lm_eval 0.4.9", "lm_eval 0.4.13", "lm_eval 0.4.14", "lm_eval 0.5", "lm_eval main", "other 9.9")
    assert noticed(facts(), *there) == [(Kind.HARNESS, "lm_eval 0.5")]
    assert noticed(facts(), *there[:2]) == []


@pytest.mark.parametrize("state", list(RerunState))
def test_a_harness_that_any_plan_was_made_for_is_not_planned_for_again(state: RerunState) -> None:
    plan = Planned("1+lm_eval-0.5", "lm_eval 0.5", state)
    assert noticed(facts(plans=(plan,)), "lm_eval 0.5") == []


def test_a_suite_files_new_version_is_planned_for_once_and_not_after_a_step_back() -> None:
    assert noticed(facts(file=NEWER)) == [(Kind.SUITE, None)]
    assert noticed(facts(file=NEWER, plans=(Planned("2", SMALL.harness, RerunState.ABANDONED),))) == []
    assert noticed(facts(file=NEWER, shown_before=frozenset({"2"}))) == []


def test_a_board_that_shows_the_file_with_another_harness_has_nothing_newer_to_come() -> None:
    shown = SMALL.model_copy(update={"version": "1+lm_eval-0.5", "harness": "lm_eval 0.5"})
    assert noticed(facts(shown=shown), "lm_eval 0.4.13", "lm_eval 0.5") == []


def test_nothing_is_noticed_of_a_suite_without_finished_evaluations() -> None:
    assert noticed(facts(file=NEWER, finished=0), "lm_eval 9") == []


def test_a_moved_dataset_and_a_new_engine_are_asked_about() -> None:
    moved = facts(
        datasets={
            ("org/arc", "easy"): ("aaa", "bbb"),
            ("org/arc", "hard"): ("aaa", "bbb"),
            ("org/mmlu", "law"): ("c", "c"),
        },
        engines=frozenset({"0.32.0"}),
    )
    engines = {"0.32.0": "gpu-1", "0.33.0": "gpu-2"}
    found = notice_changes(moved, harnesses=frozenset(), engines=engines)
    assert [(one.kind, one.can_be_planned) for one in found] == [(Kind.DATASET, False), (Kind.ENGINE, False)]
    assert "org/arc" in found[0].sentence
    assert "gpu-2" in found[1].sentence


def test_a_plan_needs_no_engine_only_where_everything_is_known_to_be_answered() -> None:
    assert costs_no_device({"inferred": 0, "new_requests": 0, "cells": {"same": 3, "score": 9}})
    assert not costs_no_device({"inferred": 0, "new_requests": 0, "cells": {"same": 3, "unknown": 1}})
    assert not costs_no_device({"inferred": 1, "new_requests": 0, "cells": {}})
    assert not costs_no_device({})


@pytest.fixture
def yard(engine: Engine) -> Yard:
    """A board with one finished evaluation, and a worker that has a newer harness too."""
    made = Yard(engine)
    with db.session(engine) as session:
        record_suites(session, made.suites.values(), now=made.now)
    made.submit()
    made.workers()
    made.finish()
    made.beat("harness-1", slots=4, harnesses=("lm_eval 0.4.13", "lm_eval 0.5"))
    return made


def watch(yard: Yard, policy: Policy, suites: Mapping[str, Suite] | None = None) -> None:
    Watch(yard.engine, suites or yard.suites, policy).round(yard.now)


def plans(yard: Yard) -> list[Rerun]:
    with db.session(yard.engine, read_only=True) as session:
        return list(session.exec(select(Rerun)).all())


def told(yard: Yard) -> list[str]:
    with db.session(yard.engine, read_only=True) as session:
        notices = session.exec(select(Notice)).all()
    return [one.event for one in notices if one.event.startswith("rerun")]


def make_ready(yard: Yard, **estimate: Any) -> None:
    with db.session(yard.engine) as session:
        plan = session.exec(select(Rerun)).one()
        plan.state, plan.ready_at = RerunState.READY, yard.now
        plan.estimate = {"evaluations": 1, "inferred": 0, "new_requests": 0, "cells": {"same": 2}} | estimate
        session.add(plan)


def test_without_a_policy_nothing_is_planned_and_what_changed_can_still_be_read(yard: Yard) -> None:
    watch(yard, Policy.OFF)
    assert plans(yard) == []
    with db.session(yard.engine, read_only=True) as session:
        (change,) = read_changes(session, yard.suites, now=yard.now)
    assert change.harness == "lm_eval 0.5"


def test_a_newly_installed_harness_is_planned_for_once(yard: Yard) -> None:
    for _ in range(3):
        watch(yard, Policy.PLAN)
    (plan,) = plans(yard)
    assert (plan.from_version, plan.to_version, plan.made_by) == ("1", "1+lm_eval-0.5", BY_POLICY)
    assert told(yard) == [events.RERUN_NOTICED]


def test_a_plan_that_needs_no_engine_is_started_where_the_policy_allows(yard: Yard) -> None:
    watch(yard, Policy.START)
    make_ready(yard)
    for _ in range(2):
        watch(yard, Policy.START)
    assert [plan.state for plan in plans(yard)] == [RerunState.RUNNING]
    assert told(yard) == [events.RERUN_NOTICED, events.RERUN_READY, events.RERUN_STARTED]


@pytest.mark.parametrize(
    ("policy", "inferred"), [(Policy.START, 1), (Policy.PLAN, 0), (Policy.PLAN, 1)], ids=["gpu", "plan", "both"]
)
def test_an_operator_is_asked_once_about_every_other_plan(yard: Yard, policy: Policy, inferred: int) -> None:
    watch(yard, policy)
    make_ready(yard, inferred=inferred, new_requests=inferred * 40)
    for _ in range(2):
        watch(yard, policy)
    assert [plan.state for plan in plans(yard)] == [RerunState.READY]
    assert told(yard) == [events.RERUN_NOTICED, events.RERUN_READY, events.RERUN_ASKS]


def test_an_operators_plan_is_told_when_ready_and_never_started_by_the_policy(yard: Yard) -> None:
    watch(yard, Policy.PLAN)
    with db.session(yard.engine) as session:
        plan = session.exec(select(Rerun)).one()
        plan.made_by = "alice"
        session.add(plan)
    make_ready(yard)
    watch(yard, Policy.START)
    assert [plan.state for plan in plans(yard)] == [RerunState.READY]
    assert told(yard) == [events.RERUN_NOTICED, events.RERUN_READY]


def test_while_another_plan_is_open_a_change_waits_for_its_end(yard: Yard) -> None:
    watch(yard, Policy.PLAN)
    yard.beat("harness-1", slots=4, harnesses=("lm_eval 0.6",))
    watch(yard, Policy.PLAN)
    assert len(plans(yard)) == 1
    with db.session(yard.engine) as session:
        plan = session.exec(select(Rerun)).one()
        plan.state, plan.ended_at = RerunState.ABANDONED, yard.now
        session.add(plan)
    watch(yard, Policy.PLAN)
    assert [plan.to_version for plan in plans(yard)] == ["1+lm_eval-0.5", "1+lm_eval-0.6"]


def test_a_dataset_that_moved_between_two_evaluations_is_asked_about_once(yard: Yard) -> None:
    yard.submit()
    yard.workers()
    yard.finish()
    with db.session(yard.engine) as session:
        for row in session.exec(select(Score).where(Score.metric == "value")):
            dataset = {"path": "org/arc", "name": None, "revision": f"r{row.evaluation_id}"}
            row.provenance = row.provenance | {"score": {"tasks": {"arc": {"dataset": dataset}}}}
            session.add(row)
    yard.beat("harness-1", slots=4)
    for _ in range(2):
        watch(yard, Policy.PLAN)
    assert told(yard) == [events.RERUN_ASKS]
    assert plans(yard) == []


def test_tasks_that_read_several_parts_of_one_dataset_are_no_moved_dataset(yard: Yard) -> None:
    with db.session(yard.engine) as session:
        for row in session.exec(select(Score).where(Score.metric == "value")):
            dataset = {"path": "org/both", "name": row.benchmark, "revision": f"sha-of-{row.benchmark}"}
            row.provenance = row.provenance | {"score": {"tasks": {row.benchmark: {"dataset": dataset}}}}
            session.add(row)
    with db.session(yard.engine, read_only=True) as session:
        assert [change.kind for change in read_changes(session, yard.suites, now=yard.now)] == [Kind.HARNESS]


def test_an_engine_that_no_score_was_made_with_is_noticed(yard: Yard) -> None:
    with db.session(yard.engine) as session:
        for row in session.exec(select(Score).where(Score.metric == "value")):
            row.provenance = row.provenance | {"engine_version": "0.9"}
            session.add(row)
        found = read_changes(session, yard.suites, now=yard.now)
    assert [change.kind for change in found] == [Kind.HARNESS, Kind.ENGINE]
    assert "Worker engine-1 answers with 1.0" in found[1].sentence


def test_an_ended_plan_is_told_each_time_it_ends(yard: Yard) -> None:
    watch(yard, Policy.PLAN)
    for _ in range(2):
        yard.wait(60)
        with db.session(yard.engine) as session:
            plan = session.exec(select(Rerun)).one()
            plan.state, plan.ended_at = RerunState.FINISHED, yard.now
            session.add(plan)
        watch(yard, Policy.OFF)
        watch(yard, Policy.OFF)
    assert told(yard).count(events.RERUN_FINISHED) == 2
