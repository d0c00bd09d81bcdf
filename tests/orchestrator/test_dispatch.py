from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlmodel import select

from orchestrator import db, dispatch
from orchestrator.broker import BrokerLost, MessageTooLarge
from orchestrator.lifecycle import EvaluationState, JobState
from orchestrator.reaper import Listening, forget_workers
from orchestrator.roster import load_queued, load_speeds, load_workers, waiting_reasons
from orchestrator.tables import Speed, Worker
from orchestrator.wire import (
    EngineFamily,
    FailureKind,
    InferWork,
    Mode,
    Order,
    PrepareWork,
    ScoreWork,
    Stage,
    identity_digest,
)
from tests.orchestrator.yard import ENGINE, LEASE, MODEL_PART, Yard, make_suite


def test_orders_carry_the_work_of_their_stage_and_a_prefix_of_their_own(yard: Yard) -> None:
    evaluation = yard.submit(document_limit=3)
    yard.workers()
    arc, mmlu = yard.tick()
    assert isinstance(arc.work, PrepareWork)
    assert (arc.work.benchmark.name, arc.work.rules, arc.work.limit, arc.work.model.revision) == (
        "ARC",
        "vllm",
        3,
        "c0ffee",
    )
    assert arc.output == f"sheets/{evaluation}/ARC/{arc.attempt}"
    yard.complete(arc)
    yard.complete(mmlu)
    (infer,) = yard.tick()
    assert isinstance(infer.work, InferWork)
    identity = {**MODEL_PART, "engine": "scripted", "device_type": "cpu"}
    assert infer.work.identity == identity
    assert infer.work.sheets == {"ARC": arc.output, "MMLU": mmlu.output}
    assert infer.output == f"responses/{identity_digest(identity)}/{infer.attempt}"
    yard.complete(infer)
    score, _ = yard.tick()
    assert isinstance(score.work, ScoreWork)
    assert (score.work.sheet, score.work.identity) == (arc.output, identity)
    assert score.output == f"results/{evaluation}/ARC/{score.attempt}"


def test_an_order_is_sent_only_after_its_attempt_is_committed(yard: Yard) -> None:
    yard.submit()
    yard.workers()
    seen = []

    def send(orders: Sequence[tuple[str, Order]]) -> None:
        with db.session(yard.engine, read_only=True):
            seen.append((len(orders), yard.held()))

    yard.dispatcher(send=send).dispatch(yard.now)
    assert seen == [(2, 2)]


def test_an_order_that_cannot_be_sent_is_taken_back_and_costs_nothing(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.workers()

    def send(orders: Sequence[tuple[str, Order]]) -> None:
        raise BrokerLost("The broker is away.")

    for _ in range(20):
        with pytest.raises(BrokerLost):
            yard.dispatcher(send=send).dispatch(yard.now)
    job = yard.job(evaluation, Stage.PREPARE, "ARC")
    assert (job.state.value, job.infrastructure_failures) == ("queued", 0)
    assert {attempt.outcome for attempt in yard.attempts(job)} == {"unsent"}
    assert len(yard.tick()) == 2


def test_an_order_that_is_too_large_for_a_message_fails_its_job_and_no_other(yard: Yard) -> None:
    large, small = yard.submit(), yard.submit()
    sent: list[int] = []

    def send(orders: Sequence[tuple[str, Order]]) -> None:
        if any(order.evaluation == large for _, order in orders):
            raise MessageTooLarge("Order has 17.0 MB.")
        sent.extend(order.evaluation for _, order in orders)

    yard.workers()
    for _ in range(2):
        yard.dispatcher(send=send).dispatch(yard.now)
    row = yard.evaluation(large)
    assert (row.state, row.failure) == (EvaluationState.FAILED, FailureKind.HARNESS)
    assert row.sentence.endswith(" Order has 17.0 MB.")
    job = yard.job(large, Stage.PREPARE, "ARC")
    assert [(attempt.outcome, attempt.sentence) for attempt in yard.attempts(job)] == [("failed", "Order has 17.0 MB.")]
    assert sent == [small, small]


def test_an_evaluation_whose_suite_is_gone_fails_with_the_way_out(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.suites = {}
    yard.workers()
    assert yard.tick() == []
    row = yard.evaluation(evaluation)
    assert (row.state, row.failure) == (EvaluationState.FAILED, FailureKind.SUITE)
    assert "The suite 'small' is no longer there. Bring its file back and retry." in row.sentence
    yard.suites = {"small": make_suite("ARC", "MMLU")}
    yard.retry(evaluation)
    yard.finish()
    assert yard.evaluation(evaluation).state is EvaluationState.FINISHED


def test_benchmarks_prepared_with_different_facts_of_the_model_are_not_inferred(yard: Yard) -> None:
    evaluation = yard.submit()
    yard.workers()
    arc, mmlu = yard.tick()
    yard.complete(arc)
    yard.complete(mmlu, identity={**MODEL_PART, "dtype": "float16"})
    assert yard.tick() == []
    row = yard.evaluation(evaluation)
    assert (row.state, row.failure) == (EvaluationState.FAILED, FailureKind.SHEET)
    assert "different facts of the model" in row.sentence
    yard.retry(evaluation)
    yard.finish()
    assert yard.evaluation(evaluation).state is EvaluationState.FINISHED


def test_a_second_attempt_on_another_device_type_has_its_own_identity(yard: Yard) -> None:
    evaluation = yard.submit()
    infer = yard.infer_order()
    yard.report(infer.attempt, "released")
    yard.beat("engine-1", stopping=True)
    cuda = ENGINE.model_copy(update={"device_type": "cuda"})
    yard.beat("engine-2", engine=cuda)
    assert yard.tick() == []  # the worker that has its responses may come back
    yard.wait(601)
    yard.beat("engine-2", engine=cuda)
    (again,) = yard.tick()
    assert isinstance(again.work, InferWork)
    assert again.work.identity["device_type"] == "cuda"
    assert yard.job(evaluation, Stage.INFER).identity == again.work.identity


def test_a_job_whose_order_cannot_be_written_keeps_no_other_job_waiting(yard: Yard) -> None:
    broken = yard.submit()
    yard.prepare_all()
    with db.session(yard.engine) as session:
        for job in [yard.job(broken, Stage.PREPARE, name) for name in ("ARC", "MMLU")]:
            job.result = {"identity": {}}
            session.add(job)
    whole = yard.submit()
    yard.wait(1)
    yard.workers()
    assert {order.evaluation for order in yard.tick()} == {whole}
    row = yard.evaluation(broken)
    assert (row.state, "could not write the order" in row.sentence) == (EvaluationState.FAILED, True)


def test_waiting_jobs_have_reasons_from_the_database(yard: Yard) -> None:
    first, second = yard.submit(), yard.submit()
    yard.beat("harness-1", slots=2)
    yard.tick()
    with db.session(yard.engine, read_only=True) as session:
        found = waiting_reasons(session, yard.now)
    waiting = [yard.job(second, Stage.PREPARE, name).id for name in ("ARC", "MMLU")]
    assert found == {
        waiting[0]: f"1st; the harness worker is busy with evaluation {first}.",
        waiting[1]: f"1st; the harness worker is busy with evaluation {first}.",
    }


def test_the_hub_gives_up_no_lease_before_it_has_listened_for_one(yard: Yard) -> None:
    listening = Listening(since=yard.now)
    yard.wait(59)
    assert not listening.long_enough(yard.now, LEASE)
    yard.wait(1)
    assert listening.long_enough(yard.now, LEASE)
    listening.interrupted(yard.now)
    assert not listening.long_enough(yard.now, LEASE)


def test_workers_long_gone_are_forgotten_unless_they_hold_a_job(yard: Yard) -> None:
    yard.submit()
    yard.workers()
    yard.beat("engine-9")
    yard.tick()
    yard.wait(8 * 24 * 3600)
    yard.beat("engine-1")
    assert forget_workers(yard.engine, yard.now) == 1
    with db.session(yard.engine, read_only=True) as session:
        assert sorted(view.name for view in load_workers(session, now=yard.now)) == ["engine-1", "harness-1"]


def test_what_one_host_lacks_sends_the_job_to_another_and_names_all_when_none_is_left(yard: Yard) -> None:
    evaluation = yard.submit()
    first = yard.infer_order()
    yard.beat("engine-2")
    yard.fail(first, FailureKind.TOO_LARGE, "It takes 90 GB of 50 GB.")
    (second,) = yard.tick()
    assert [worker for worker, order in yard.sent if order is second] == ["engine-2"]
    yard.fail(second, FailureKind.TOO_LARGE, "It takes 90 GB of 60 GB.")
    assert yard.tick() == []
    row = yard.evaluation(evaluation)
    assert (row.state, row.failure) == (EvaluationState.FAILED, FailureKind.TOO_LARGE)
    assert row.sentence == (
        "None of the 2 connected workers that could hold it takes it: engine-1, engine-2. "
        "engine-1: It takes 90 GB of 50 GB. engine-2: It takes 90 GB of 60 GB."
    )
    assert [each.outcome for each in yard.attempts(yard.job(evaluation, Stage.INFER))] == ["refused", "refused"]
    yard.retry(evaluation)
    yard.finish()
    assert yard.evaluation(evaluation).state is EvaluationState.FINISHED


def test_a_benchmark_of_generated_code_goes_to_a_harness_worker_with_a_sandbox(yard: Yard) -> None:
    yard.suites = {"small": make_suite("ARC")}
    evaluation = yard.submit()
    yard.beat("harness-1")
    (first,) = yard.tick()
    yard.fail(first, FailureKind.SANDBOX, "bubblewrap (bwrap) is not installed.")
    assert yard.tick() == []
    row = yard.job(evaluation, Stage.PREPARE, "ARC")
    assert (row.state, row.failure) == (JobState.FAILED, FailureKind.SANDBOX)
    yard.retry(evaluation)
    (again,) = yard.tick()
    yard.beat("harness-2")
    yard.fail(again, FailureKind.SANDBOX, "bubblewrap (bwrap) is not installed.")
    (other,) = yard.tick()
    assert [worker for worker, order in yard.sent if order is other] == ["harness-2"]


def test_a_worker_that_was_started_again_may_be_asked_again(yard: Yard) -> None:
    evaluation = yard.submit()
    first = yard.infer_order()
    yard.beat("engine-2")
    yard.fail(first, FailureKind.PRECISION, "It needs bitsandbytes.")
    yard.beat("engine-2", stopping=True)
    yard.beat("engine-1", boot="second")
    (again,) = yard.tick()
    assert again.evaluation == evaluation
    yard.complete(again)
    yard.finish()
    assert yard.evaluation(evaluation).state is EvaluationState.FINISHED


def test_a_job_that_every_new_worker_refuses_fails_in_the_end(yard: Yard) -> None:
    evaluation = yard.submit()
    order = yard.infer_order()
    for number in range(2, 12):
        yard.beat(f"engine-{number}")
        yard.fail(order, FailureKind.OUT_OF_MEMORY, "It does not fit.")
        if yard.evaluation(evaluation).state is EvaluationState.FAILED:
            break
        yard.beat(f"engine-{number - 1}", stopping=True)
        (order,) = yard.tick()
    else:
        yard.fail(order, FailureKind.OUT_OF_MEMORY, "It does not fit.")
    assert yard.evaluation(evaluation).state is EvaluationState.FAILED
    assert len(yard.attempts(yard.job(evaluation, Stage.INFER))) == 11


def test_a_job_that_fits_on_no_worker_waits_and_says_what_it_needs(yard: Yard) -> None:
    config = {"num_attention_heads": 64, "num_key_value_heads": 8, "num_hidden_layers": 80, "hidden_size": 8192}
    yard.suites = {"small": make_suite("ARC")}
    evaluation = yard.submit(facts={"config": config, "weight_bytes": 75 << 30}, engine=EngineFamily.VLLM)
    yard.beat("harness-1", slots=4)
    for order in yard.tick():
        yard.complete(order, longest=1000)
    gpus = ENGINE.model_copy(
        update={"family": EngineFamily.VLLM, "device_type": "cuda", "memory_bytes": 80 << 30, "device_count": 1}
    )
    yard.beat("engine-1", engine=gpus)
    assert yard.tick() == []
    waiting = yard.job(evaluation, Stage.INFER).id
    with db.session(yard.engine, read_only=True) as session:
        assert waiting_reasons(session, yard.now) == {
            waiting: "Needs 4 GPUs of 80 GB (150 GiB of weights); the largest worker has 1 of 80 GB."
        }
    yard.beat("engine-2", engine=gpus.model_copy(update={"device_count": 8}), slots=8)
    (order,) = yard.tick()
    assert order.devices == 4
    assert [each.devices for each in yard.attempts(yard.job(evaluation, Stage.INFER))] == [4]


def test_a_job_far_back_that_fits_is_found_behind_many_that_do_not(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "FIRST", dict.fromkeys(dispatch.FIRST, 2))
    large = {"config": {"num_attention_heads": 64, "num_hidden_layers": 80}, "weight_bytes": 900 << 30}
    yard.suites = {"small": make_suite("ARC")}
    for _ in range(5):
        yard.submit(facts=large)
        yard.wait(1)
    small = yard.submit()
    yard.beat("harness-1", slots=8)
    for order in yard.tick():
        yard.complete(order)
    yard.beat("engine-1", engine=ENGINE.model_copy(update={"memory_bytes": 64 << 30}))
    assert [order.evaluation for order in yard.tick()] == [small]


def test_a_drained_worker_gets_no_order(yard: Yard) -> None:
    yard.submit()
    yard.beat("harness-1", slots=4)
    with db.session(yard.engine) as session:
        worker = session.exec(select(Worker)).one()
        worker.mode = Mode.DRAINED
        session.add(worker)
    assert yard.tick() == []


def test_finished_inference_is_measured_and_the_next_one_like_it_has_an_estimate(yard: Yard) -> None:
    yard.submit()
    infer = yard.infer_order()
    yard.complete(infer, computed=1000, seconds=10.0, total_seconds=40.0)
    yard.finish()
    second = yard.submit()
    yard.workers()
    for order in yard.tick():
        yard.complete(order, requests=3000)
    yard.beat("engine-1", slots=0)
    with db.session(yard.engine, read_only=True) as session:
        (speed,) = session.exec(select(Speed)).all()
        (known,) = load_queued(session)
        estimate = load_speeds(session).of(known, "test CPU")
    assert (speed.device, speed.runs, speed.requests, speed.engine_seconds, speed.start_seconds) == (
        "test CPU",
        1,
        1000,
        10.0,
        30.0,
    )
    assert known.evaluation == second
    assert estimate is not None
    assert (estimate.answering.total_seconds(), estimate.start.total_seconds()) == (60.0, 30.0)


def test_an_end_of_a_worker_is_kept_by_the_hubs_clock(yard: Yard) -> None:
    theirs = yard.now - timedelta(hours=3)
    yard.beat("engine-1", at=theirs, until=theirs + timedelta(minutes=5))
    with db.session(yard.engine, read_only=True) as session:
        (view,) = load_workers(session, now=yard.now)
    assert view.until == yard.now + timedelta(minutes=5)
