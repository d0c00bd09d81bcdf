"""Evaluations that ask the same of the same model, in a real database."""

from typing import Any

from orchestrator import db
from orchestrator.roster import waiting_reasons
from orchestrator.wire import Progress, Stage
from tests.orchestrator.yard import ENGINE, MODEL_PART, Yard, make_suite


def two_suites(yard: Yard) -> None:
    yard.suites = {"one": make_suite("ARC", "MMLU"), "two": make_suite("MMLU", "GSM8K")}


def prepare(yard: Yard, **fields: Any) -> None:
    """Give out and complete every prepare job; its prompts are those of its benchmark."""
    yard.beat("harness-1", slots=8)
    for order in yard.tick():
        assert order.work.stage is Stage.PREPARE
        tasks = {"task": {"prompts": f"prompts of {order.work.benchmark.name}"}}
        yard.complete(order, provenance={"tasks": tasks}, **fields)


def engines(yard: Yard) -> None:
    yard.beat("engine-1")
    yard.beat("engine-2")


def test_an_evaluation_waits_until_what_it_shares_is_answered_and_no_longer(yard: Yard) -> None:
    two_suites(yard)
    first, second = yard.submit("one"), yard.submit("two")
    prepare(yard)
    engines(yard)
    (infer,) = yard.tick()
    assert infer.evaluation == first
    assert yard.tick() == []
    with db.session(yard.engine, read_only=True) as session:
        found = waiting_reasons(session, yard.now)
    waiting = yard.job(second, Stage.INFER).id
    assert found[waiting] == "Waits for another evaluation, which computes some of the same answers."

    worker = next(name for name, order in yard.sent if order is infer)
    yard.beat(worker, running={infer.attempt: Progress(benchmarks_done=("ARC",))})
    assert [order.work.stage for order in yard.tick()] == [Stage.SCORE]
    yard.beat(worker, running={infer.attempt: Progress(benchmarks_done=("ARC", "MMLU"))})
    assert {(order.evaluation, order.work.stage) for order in yard.tick()} == {
        (first, Stage.SCORE),
        (second, Stage.INFER),
    }


def test_an_evaluation_of_another_identity_or_other_weights_does_not_wait(yard: Yard) -> None:
    two_suites(yard)
    first = yard.submit("one")
    prepare(yard)
    second = yard.submit("two")
    prepare(yard, identity={**MODEL_PART, "dtype": "float16"})
    third = yard.submit("two", revision="other")
    prepare(yard)
    engines(yard)
    yard.beat("engine-3")
    assert [order.evaluation for order in yard.tick()] == [first, second, third]


def test_an_evaluation_does_not_wait_for_answers_of_another_type_of_device(yard: Yard) -> None:
    two_suites(yard)
    first, second = yard.submit("one"), yard.submit("two")
    prepare(yard)
    yard.beat("engine-1")
    yard.beat("engine-2", engine=ENGINE.model_copy(update={"device_type": "other"}))
    assert [order.evaluation for order in yard.tick()] == [first, second]


def test_what_an_attempt_that_failed_left_unanswered_is_computed_by_the_next_in_line(yard: Yard) -> None:
    two_suites(yard)
    first, second = yard.submit("one"), yard.submit("two")
    prepare(yard)
    engines(yard)
    (infer,) = yard.tick()
    yard.cancel(first)
    engines(yard)
    (other,) = yard.tick()
    assert (other.evaluation, infer.evaluation) == (second, first)
