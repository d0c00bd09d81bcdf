"""From a suite's harness to the worker that has it: heartbeats, rows and orders; at score, the harness of the sheet."""

from orchestrator import db
from orchestrator.roster import waiting_reasons
from orchestrator.suite_versions import record_suites
from orchestrator.wire import PrepareWork, ScoreWork
from tests.orchestrator.yard import Yard, done_of

HARNESS = "lm_eval 0.4.13"
"""Of the yard's suite."""


def record(yard: Yard) -> None:
    with db.session(yard.engine) as session:
        record_suites(session, yard.suites.values(), now=yard.now)


def test_a_prepare_is_sent_to_the_worker_that_says_it_has_the_suites_harness(yard: Yard) -> None:
    record(yard)
    yard.submit()
    yard.beat("harness-1", slots=4, harnesses=("lm_eval 0.4.14",))
    assert yard.tick() == []
    with db.session(yard.engine, read_only=True) as session:
        assert {said.split(",")[0] for said in waiting_reasons(session, yard.now).values()} == {f"Needs {HARNESS}"}
    yard.beat("harness-2", slots=4, harnesses=("lm_eval 0.4.12", HARNESS))
    orders = yard.tick()
    assert {worker for worker, _ in yard.sent} == {"harness-2"}
    assert [order.work.harness for order in orders if isinstance(order.work, PrepareWork)] == [HARNESS, HARNESS]


def test_a_harness_that_is_added_while_the_worker_runs_is_used_at_its_next_heartbeat(yard: Yard) -> None:
    record(yard)
    yard.submit()
    yard.beat("harness-1", slots=4, harnesses=("lm_eval 0.4.14",))
    assert yard.tick() == []
    yard.beat("harness-1", slots=4, harnesses=("lm_eval 0.4.14", HARNESS))
    assert len(yard.tick()) == 2


def test_a_sheet_is_scored_by_the_harness_that_made_it(yard: Yard) -> None:
    yard.submit()
    yard.workers()
    for order in yard.tick():
        yard.report(order.attempt, "completed", done=done_of(order, provenance={"harness": "lm_eval 0.4.10"}))
    (infer,) = yard.tick()
    yard.complete(infer)
    scores = [order.work for order in yard.tick()]
    assert [work.harness for work in scores if isinstance(work, ScoreWork)] == ["lm_eval 0.4.10"] * 2
