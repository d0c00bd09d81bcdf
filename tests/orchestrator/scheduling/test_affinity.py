"""Where a job is drawn to: its responses, its weights, a warm engine; and what keeps it away from a worker."""

from dataclasses import replace
from datetime import timedelta

from orchestrator.footprint import GIB
from orchestrator.scheduling.places import hopeless
from orchestrator.scheduling.scheduler import forecast
from orchestrator.wire import EngineFamily, Stage
from tests.orchestrator.scheduling.builders import NOW, POLICY, given, gpus, job, needing, pairs, worker


def test_an_infer_job_goes_back_to_the_kind_of_device_that_has_its_responses() -> None:
    workers = [worker("engine-1", device_type="cpu", slots=5), worker("engine-2", device_type="cuda")]
    assert pairs([job(1, device_type="cuda")], workers) == [(1, "engine-2")]
    assert pairs([job(1, device_type="cuda")], workers[:1]) == [(1, "engine-1")]


def test_an_infer_job_waits_a_while_for_the_kind_of_device_that_has_its_responses() -> None:
    idle = worker("engine-1", device_type="cpu")
    for absent in ({"holding": (9,)}, {"last_heartbeat": NOW - timedelta(minutes=9)}, {"stopping": True}):
        workers = [idle, worker("engine-2", device_type="cuda", **absent)]
        assert pairs([job(1, device_type="cuda"), job(2)], workers) == [(2, "engine-1")]
    gone = worker("engine-2", device_type="cuda", last_heartbeat=NOW - timedelta(minutes=11))
    assert pairs([job(1, device_type="cuda")], [idle, gone]) == [(1, "engine-1")]


def test_of_several_free_workers_a_job_goes_to_one_that_has_its_weights() -> None:
    queued = [job(1, weights="aaa"), job(2, weights="bbb")]
    workers = [worker("engine-1"), worker("engine-2", weights=("ccc", "aaa")), worker("engine-3", weights=("aaa",))]
    # engine-3 used them last; the second job keeps away from engine-2, which another job of the model may want.
    assert pairs(queued, workers) == [(1, "engine-3"), (2, "engine-1")]
    assert pairs([job(1, weights="aaa"), job(2, weights="aaa")], workers) == [(1, "engine-3"), (2, "engine-2")]


def test_weights_on_a_disk_make_no_job_wait_and_let_none_overtake() -> None:
    queued = [job(1, weights="aaa"), job(2, weights="bbb"), job(3, weights="aaa")]
    busy = worker("engine-1", weights=("aaa",), holding=(9,))
    assert pairs(queued, [busy, worker("engine-2", weights=("bbb",))]) == [(1, "engine-2")]


def test_responses_on_a_kind_of_device_count_more_than_weights_on_a_disk() -> None:
    workers = [worker("engine-1", weights=("aaa",)), worker("engine-2", device_type="cuda")]
    assert pairs([job(1, weights="aaa", device_type="cuda")], workers) == [(1, "engine-2")]


def test_a_forecast_names_what_each_engine_worker_gets_when_its_slots_are_free() -> None:
    queued = [
        job(1, weights="aaa"),
        job(2, weights="bbb"),
        job(3, weights="ccc"),
        job(4, stage=Stage.PREPARE),
        job(5, engine=EngineFamily.SCRIPTED),
    ]
    workers = [
        worker("engine-1", holding=(9,)),
        worker("engine-2", holding=(8,), weights=("aaa",)),
        worker("engine-3", stopping=True),
        worker("harness-1"),
    ]
    found = forecast(queued, workers, POLICY, NOW)
    assert {name: [job.id for job in jobs] for name, jobs in found.items()} == {"engine-1": [2], "engine-2": [1]}


def test_a_warm_engine_gets_the_next_job_of_its_model_before_those_a_little_older() -> None:
    queued = [job(1, weights="aaa", created_at=NOW - timedelta(minutes=5)), job(2, weights="bbb")]
    warm = worker("engine-2", warm=("bbb",))
    assert given(queued, [warm]) == [(2, "engine-2", 1)]
    assert given(queued, [warm, worker("engine-1", weights=("bbb",))]) == [(2, "engine-2", 1), (1, "engine-1", 1)]
    older = replace(queued[0], created_at=NOW - timedelta(minutes=11))
    assert given([older, queued[1]], [warm]) == [(1, "engine-2", 1)]


def test_slices_stay_on_the_type_of_device_where_the_others_are_answered() -> None:
    bound = job(1, device_type="cuda", bound=True)
    assert given([bound], [worker("engine-1", device_type="cpu")]) == []
    assert given([bound], [worker("engine-1", device_type="cpu"), gpus("engine-2")]) == [(1, "engine-2", 1)]


def test_a_job_goes_back_to_a_worker_that_it_failed_on_only_when_no_other_is_free() -> None:
    having, other = worker("engine-1", weights=("c0ffee",)), worker("engine-2")
    retried = job(1, weights="c0ffee", failed_on=frozenset({"engine-1"}))

    assert pairs([retried], [having, other]) == [(1, "engine-2")]
    assert pairs([retried], [having]) == [(1, "engine-1")]
    assert pairs([replace(retried, device_type="cpu")], [having, other]) == [(1, "engine-2")]


def test_a_worker_that_refused_a_job_is_not_given_it_again_before_it_is_started_anew() -> None:
    refused = job(1, refused_by=frozenset({("engine-1", "b")}))
    assert given([refused], [worker("engine-1"), worker("engine-2")]) == [(1, "engine-2", 1)]
    assert given([refused], [worker("engine-1")]) == []
    assert given([refused], [worker("engine-1", boot="c")]) == [(1, "engine-1", 1)]


def test_a_job_is_hopeless_when_every_worker_that_could_hold_it_has_refused() -> None:
    refused = job(1, need=needing(30), refused_by=frozenset({("engine-1", "b")}))
    first, second, small = gpus(), gpus("engine-2"), gpus("engine-3", memory_bytes=16 * GIB, slots=1, device_count=1)
    assert hopeless(refused, [first, small], POLICY, NOW) == ["engine-1"]
    assert hopeless(refused, [first, second], POLICY, NOW) == []
    assert hopeless(refused, [first, replace(second, slots=0)], POLICY, NOW) == []
    assert hopeless(refused, [first, replace(second, stopping=True)], POLICY, NOW) == [], "it may be started again"
    gone = replace(second, last_heartbeat=NOW - timedelta(minutes=11))
    assert hopeless(refused, [first, gone], POLICY, NOW) == ["engine-1"]
    assert hopeless(refused, [small], POLICY, NOW) == []
    assert hopeless(job(1), [first], POLICY, NOW) == []


def test_a_job_that_its_device_type_refuses_goes_to_another() -> None:
    refused = job(1, device_type="cpu", refused_by=frozenset({("engine-1", "b")}))
    workers = [worker("engine-1"), gpus("engine-7")]
    assert pairs([refused], workers) == [(1, "engine-7")]
    another = worker("engine-2", holding=(9,))
    assert pairs([refused], [*workers, another]) == [], "it may still be answered where it was begun"
    assert pairs([replace(refused, bound=True)], workers) == []


def test_nobody_waits_for_a_worker_that_an_operator_has_closed() -> None:
    closed = worker("engine-1", slots=0, is_open=False)
    assert pairs([job(1, device_type="cpu")], [closed, gpus("engine-7")]) == [(1, "engine-7")]
