from datetime import timedelta

import pytest

from orchestrator import db
from orchestrator.canaries.drift import GENERATED, SCORED
from orchestrator.canaries.keeper import AGAIN_AFTER
from orchestrator.canaries.sample import read_reference
from orchestrator.errors import NotFound, WrongState
from orchestrator.lifecycle import CanaryState
from orchestrator.roster import load_workers, waiting_reasons
from orchestrator.wire import FailureKind, InferWork, Order, Stage, identity_digest
from tests.orchestrator.canaries.cage import NEW, Cage, shifted
from tests.orchestrator.yard import ENGINE, MODEL_PART

ONE_KIND = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""Tests in which the kind of database makes no difference that another one does not show."""

IDENTITY = {**MODEL_PART, "engine": "scripted", "device_type": "cpu"}


def canary_order(cage: Cage, worker: str = "engine-2") -> Order:
    """A worker with the new engine comes up, and is given the canary alone."""
    cage.yard.beat(worker, engine=NEW)
    cage.look()
    (order,) = cage.yard.tick()
    return order


def waiting_job(cage: Cage) -> int:
    """Another evaluation, prepared: its inference waits."""
    evaluation = cage.yard.submit(revision="beef")
    cage.yard.beat("harness-1", slots=4)
    for order in cage.yard.tick():
        cage.yard.complete(order)
    return evaluation


@ONE_KIND
def test_a_sample_is_of_whole_documents_of_every_benchmark_with_their_stored_answers(cage: Cage) -> None:
    number = cage.watched()
    row = cage.canary(number)
    assert (row.state, row.engine.value, row.device_type, row.set_by) == (CanaryState.PRESENT, "scripted", "cpu", "ada")
    reference = read_reference(cage.store, row.sample)
    kinds = [question.kind for question in reference.questions]
    assert (kinds.count(SCORED), kinds.count(GENERATED)) == (8, 8)
    assert row.requests == len(reference.answers) == 8 * 4 + 8
    assert set(row.sheets) == {SCORED, GENERATED}
    assert row.reference["engines"] == [ENGINE.model_dump(mode="json")]


def test_a_new_build_gets_the_canary_first_and_work_once_its_answers_are_the_same(cage: Cage) -> None:
    number = cage.watched()
    evaluation = waiting_job(cage)
    order = canary_order(cage)
    work = order.work
    assert isinstance(work, InferWork)
    # An identity of its own: nothing of it is known, and nothing of it becomes the model's.
    assert work.identity == {**IDENTITY, "canary": f"{number}-1"}
    assert order.output == f"responses/{identity_digest(work.identity)}/{order.attempt}"
    assert cage.yard.states(evaluation)["infer"] == "queued"
    stored = cage.store.list(f"responses/{identity_digest(IDENTITY)}")
    cage.answer(order, engine=NEW)
    assert cage.yard.tick() == []
    cage.look()
    (run,) = cage.runs()
    assert (run.state.value, run.worker, run.drift["mean"], run.drift["changed_texts"]) == ("passed", "engine-2", 0, 0)
    assert run.drift["per_second"] == 30.0
    (order,) = cage.yard.tick()
    assert (order.evaluation, order.work.stage) == (evaluation, Stage.INFER)
    assert cage.store.list(f"responses/{identity_digest(IDENTITY)}") == stored
    assert cage.notices() == []


def test_a_build_that_drifts_is_kept_out_until_an_operator_lets_it_in(cage: Cage) -> None:
    cage.watched()
    evaluation = waiting_job(cage)
    cage.answer(canary_order(cage), shifted(0.5), engine=NEW)
    cage.look()
    assert cage.yard.tick() == []
    (run,) = cage.runs()
    assert (run.state.value, run.sentence) == (
        "drifted",
        "Log-likelihoods differ by 0.5 on average, and may by 0.2.",
    )
    (notice,) = cage.notices()
    assert "scripted 2.0" in notice["sentence"]
    assert f"canary accept {run.build}" in notice["sentence"]
    with db.session(cage.yard.engine, read_only=True) as session:
        reasons = waiting_reasons(session, cage.yard.now)
        sentences = {worker.name: worker.sentence for worker in load_workers(session, now=cage.yard.now)}
    assert reasons[cage.yard.job(evaluation, Stage.INFER).id or 0] == ("the canary keeps out engine-2 (scripted 2.0).")
    assert sentences["engine-2"].startswith("kept out by the canary (scripted 2.0)")
    cage.accept(run.build)
    (order,) = cage.yard.tick()
    assert order.evaluation == evaluation
    word = cage.runs()[-1]
    assert (word.state.value, word.made_by, word.ended_at) == ("accepted", "ada", cage.yard.now)


@ONE_KIND
def test_who_waits_for_the_canary_is_told_so_with_worker_and_engine(cage: Cage) -> None:
    cage.watched()
    evaluation = waiting_job(cage)
    canary_order(cage)
    with db.session(cage.yard.engine, read_only=True) as session:
        reasons = waiting_reasons(session, cage.yard.now)
    said = reasons[cage.yard.job(evaluation, Stage.INFER).id or 0]
    assert said.startswith("1st; waits for the canary on engine-2 (scripted 2.0)")


def test_ten_equal_hosts_run_it_once_and_another_build_by_itself(cage: Cage) -> None:
    cage.watched()
    for number in range(10):
        cage.yard.beat(f"engine-{number + 2}", engine=NEW)
    cage.yard.beat("engine-x", engine=NEW.model_copy(update={"driver": "570.86.15"}))
    cage.look()
    cage.look()
    assert len(cage.yard.tick()) == 2
    assert len({run.build for run in cage.runs()}) == len(cage.runs()) == 2


@ONE_KIND
def test_settings_runtime_and_driver_make_another_build_and_an_older_worker_has_one_as_well(cage: Cage) -> None:
    cage.yard.beat("engine-1")
    cage.yard.beat("engine-2", engine_settings="abcd")
    cage.yard.beat("engine-3", engine=ENGINE.model_copy(update={"runtime": "torch 3"}))
    cage.yard.beat("engine-4")
    found = [cage.build(f"engine-{number}") for number in (1, 2, 3, 4)]
    assert len(set(found)) == 3
    assert found[0] == found[3]
    assert all(found)


@ONE_KIND
def test_a_canary_that_was_preempted_goes_on_on_another_worker_of_the_build(cage: Cage) -> None:
    cage.watched()
    order = canary_order(cage)
    cage.yard.report(order.attempt, "released", preempted=True, sentence="Others want the GPU.")
    cage.yard.beat("engine-2", engine=NEW, slots=0)
    cage.yard.beat("engine-3", engine=NEW)
    (again,) = cage.yard.tick()
    assert cage.yard.sent[-1][0] == "engine-3"
    assert again.attempt != order.attempt
    assert isinstance(again.work, InferWork)
    assert isinstance(order.work, InferWork)
    assert again.work.identity == order.work.identity
    cage.answer(again, engine=NEW)
    cage.look()
    assert cage.states() == ["passed"]


@ONE_KIND
def test_a_worker_that_dies_in_the_canary_loses_it_to_another_attempt(cage: Cage) -> None:
    cage.watched()
    order = canary_order(cage)
    cage.yard.wait(120)
    assert cage.yard.reap() == 1
    again = canary_order(cage)
    assert again.job == order.job
    # What the first one says now is too late.
    assert not cage.yard.complete(order).accepted
    cage.answer(again, engine=NEW)
    cage.look()
    assert cage.states() == ["passed"]


@ONE_KIND
def test_a_report_that_comes_twice_and_two_looks_at_once_conclude_once(cage: Cage) -> None:
    cage.watched()
    order = canary_order(cage)
    cage.answer(order, shifted(0.5), engine=NEW)
    assert not cage.yard.complete(order).accepted
    cage.look()
    cage.look()
    assert cage.states() == ["drifted"]
    assert len(cage.notices()) == 1


@ONE_KIND
def test_a_failure_is_tried_again_and_is_no_drift_and_after_an_hour_it_is_tried_anew(cage: Cage) -> None:
    cage.watched()
    order = canary_order(cage)
    cage.yard.fail(order, FailureKind.DOWNLOAD, "The Hub is away.")
    (order,) = cage.yard.tick()
    cage.yard.fail(order, FailureKind.GATED, "The model cannot be read any more.")
    cage.look()
    (run,) = cage.runs()
    assert (run.state.value, run.drift, run.sentence) == (
        "failed",
        {},
        "The model cannot be read any more. (Tried 2 times.)",
    )
    # Nobody who reads a channel is told whose model it is.
    (notice,) = cage.notices()
    assert "cannot be read" not in notice["sentence"]
    waiting_job(cage)
    cage.yard.beat("engine-2", engine=NEW)
    cage.look()
    assert cage.yard.tick() == []
    cage.yard.wait(AGAIN_AFTER.total_seconds())
    cage.answer(canary_order(cage), engine=NEW)
    cage.look()
    assert cage.states() == ["failed", "passed"]


@ONE_KIND
def test_answers_that_are_missing_or_another_engine_s_are_a_failure_and_no_drift(cage: Cage) -> None:
    cage.watched()
    order = canary_order(cage)
    cage.yard.complete(order, engine=NEW)
    cage.look()
    cage.run_again("engine-2")
    (order,) = cage.yard.tick()
    cage.answer(order, engine=ENGINE)
    cage.look()
    runs = cage.runs()
    assert [run.state.value for run in runs] == ["failed", "failed"]
    assert "has no" in runs[0].sentence
    assert "scripted 1.0, and not by the build" in runs[1].sentence


@ONE_KIND
def test_a_run_that_is_asked_for_changes_nothing_until_it_has_ended_and_then_counts(cage: Cage) -> None:
    cage.watched()
    cage.answer(canary_order(cage), engine=NEW)
    cage.look()
    evaluation = waiting_job(cage)
    cage.run_again("engine-2")
    with pytest.raises(WrongState, match="already"):
        cage.run_again("engine-2")
    cage.yard.beat("engine-2", engine=NEW, slots=2)
    orders = {order.evaluation: order for order in cage.yard.tick()}
    assert evaluation in orders
    assert len(orders) == 2
    del orders[evaluation]
    (order,) = orders.values()
    cage.answer(order, shifted(1.0), engine=NEW)
    cage.look()
    assert cage.states() == ["passed", "drifted"]
    other = waiting_job(cage)
    assert cage.yard.tick() == []
    assert cage.yard.states(other)["infer"] == "queued"


def test_a_canary_that_is_changed_while_one_runs_ends_that_run_and_asks_the_build_anew(cage: Cage) -> None:
    first = cage.watched()
    order = canary_order(cage)
    second = cage.set(order.evaluation, asked=20)
    # Until the new sample is there the old canary counts.
    assert cage.canary(first).state is CanaryState.PRESENT
    cage.look()
    assert (cage.canary(first).state, cage.canary(second).state) == (CanaryState.ENDED, CanaryState.PRESENT)
    assert not cage.yard.complete(order).accepted
    cage.look()
    assert cage.states() == ["abandoned", "waiting"]
    (again,) = cage.yard.tick()
    assert isinstance(again.work, InferWork)
    assert again.work.identity["canary"] == f"{second}-2"


@ONE_KIND
def test_without_a_canary_every_build_works_and_off_stops_what_runs(cage: Cage) -> None:
    cage.watched()
    evaluation = waiting_job(cage)
    order = canary_order(cage)
    ended = cage.off()
    assert ended.attempts == [order.attempt]
    assert cage.states() == ["abandoned"]
    (order,) = cage.yard.tick()
    assert order.evaluation == evaluation
    assert cage.off().canaries == []


@ONE_KIND
def test_its_evaluation_stays_as_it_is_whatever_becomes_of_the_canary(cage: Cage) -> None:
    number = cage.watched()
    evaluation = cage.canary(number).evaluation_id
    before = (
        cage.yard.evaluation(evaluation).model_dump(),
        [score.model_dump() for score in cage.yard.scores(evaluation)],
    )
    order = canary_order(cage)
    cage.yard.fail(order, FailureKind.PRECISION, "No.")
    cage.look()
    cage.run_again("engine-2")
    (order,) = cage.yard.tick()
    cage.answer(order, shifted(1.0), engine=NEW)
    cage.look()
    after = (
        cage.yard.evaluation(evaluation).model_dump(),
        [score.model_dump() for score in cage.yard.scores(evaluation)],
    )
    assert after == before
    with pytest.raises(WrongState, match="no failed job"):
        cage.yard.retry(evaluation)


@ONE_KIND
def test_a_clock_that_was_set_back_neither_overrules_an_operator_nor_keeps_a_failure_for_ever(cage: Cage) -> None:
    cage.watched()
    cage.yard.fail(canary_order(cage), FailureKind.GATED, "No.")
    cage.look()
    cage.yard.now -= timedelta(days=2)
    cage.accept(cage.runs()[0].build)
    evaluation = waiting_job(cage)
    cage.yard.beat("engine-2", engine=NEW)
    cage.look()
    assert cage.states() == ["failed", "accepted"]
    assert [order.evaluation for order in cage.yard.tick()] == [evaluation]


@ONE_KIND
def test_workers_of_another_engine_family_or_device_are_none_of_its_business(cage: Cage) -> None:
    cage.watched()
    cage.yard.beat("engine-9", engine=NEW.model_copy(update={"device_type": "cuda", "device": "a GPU"}))
    evaluation = waiting_job(cage)
    cage.look()
    assert cage.runs() == []
    assert [order.evaluation for order in cage.yard.tick()] == [evaluation]


@ONE_KIND
def test_what_cannot_be_a_canary_is_refused_with_a_sentence(cage: Cage) -> None:
    with pytest.raises(NotFound, match="no evaluation 99"):
        cage.set(99)
    with pytest.raises(WrongState, match="needs a finished one"):
        cage.set(cage.yard.submit())
    with pytest.raises(NotFound, match="No canary knows"):
        cage.accept("nothing")
    cage.yard.beat("engine-1")
    with pytest.raises(WrongState, match="No canary is set"):
        cage.run_again("engine-1")


@ONE_KIND
def test_a_sample_that_cannot_be_taken_holds_nobody_and_leaves_the_canary_before_it(cage: Cage) -> None:
    first = cage.watched()
    cage.answer(canary_order(cage), engine=NEW)
    cage.look()
    evaluation = cage.yard.submit(revision="dead")
    cage.yard.beat("harness-1", slots=4)
    for order in cage.yard.tick():
        cage.yard.complete(order)  # no sheet of it is ever written
    cage.yard.finish()
    second = cage.set(evaluation)
    cage.look()
    row = cage.canary(second)
    assert (row.state, cage.canary(first).state) == (CanaryState.FAILED, CanaryState.PRESENT)
    assert row.sentence.startswith("No sample could be taken. ")
