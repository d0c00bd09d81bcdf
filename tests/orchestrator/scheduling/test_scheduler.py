"""Who runs next, where: examples of each rule, and properties that hold whatever waits and whoever is there."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import process_time
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import given as given_
from hypothesis import strategies as st

from orchestrator.footprint import GIB, Footprint
from orchestrator.scheduling.estimates import Measure, Speeds, device_key
from orchestrator.scheduling.places import (
    Policy,
    QueuedJob,
    WorkerView,
    hopeless,
    is_live,
    place_of,
    pool_for,
    pool_of,
    urgency,
)
from orchestrator.scheduling.scheduler import forecast, plan, plan_round
from orchestrator.wire import EngineFamily, Stage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Other programs may run beside these tests."""
POLICY = Policy()


def job(id: int, **fields: Any) -> QueuedJob:
    given = {"evaluation": id, "stage": Stage.INFER, "engine": EngineFamily.VLLM, "created_at": NOW}
    return QueuedJob(id=id, **(given | fields))


def worker(name: str = "engine-1", **fields: Any) -> WorkerView:
    kind = "harness" if name.startswith("harness") else "engine"
    given: dict[str, Any] = {"boot": "b", "kind": kind, "slots": 1, "last_heartbeat": NOW, "device_type": "cpu"}
    if kind == "engine":
        given["engine"] = EngineFamily.VLLM
    return WorkerView(name=name, **(given | fields))


def pairs(queued: list[QueuedJob], workers: list[WorkerView]) -> list[tuple[int, str]]:
    return [(chosen.job.id, chosen.worker.name) for chosen in plan(queued, workers, POLICY, NOW)]


def test_the_earlier_turn_goes_first_then_the_older_evaluation_then_the_earlier_job() -> None:
    old, new = NOW - timedelta(hours=1), NOW
    queued = [
        job(1, created_at=new),
        job(2, created_at=old),
        job(3, created_at=new, turn_at=old - timedelta(hours=5)),
        job(4, created_at=old),
    ]
    workers = [worker(slots=4)]
    assert [id for id, _ in pairs(queued, workers)] == [3, 2, 4, 1]


def test_stages_go_to_their_kind_of_worker_and_engine_family() -> None:
    queued = [
        job(1, stage=Stage.PREPARE),
        job(2, engine=EngineFamily.SCRIPTED),
        job(3, engine=EngineFamily.VLLM),
        job(4, stage=Stage.SCORE),
    ]
    workers = [worker("engine-1"), worker("harness-1", slots=2)]
    assert pairs(queued, workers) == [(1, "harness-1"), (3, "engine-1"), (4, "harness-1")]


def test_silent_stopping_and_full_workers_get_nothing() -> None:
    workers = [
        worker("engine-silent", last_heartbeat=NOW - timedelta(seconds=31)),
        worker("engine-stopping", stopping=True),
        worker("engine-full", holding=(7,)),
    ]
    assert pairs([job(1)], workers) == []


def test_a_job_that_pauses_is_passed_over() -> None:
    queued = [job(1, not_before=NOW + timedelta(seconds=1)), job(2, not_before=NOW)]
    assert pairs(queued, [worker(slots=2)]) == [(2, "engine-1")]


def test_jobs_are_spread_over_the_emptiest_workers() -> None:
    workers = [worker("harness-1", slots=3, holding=(9, 9)), worker("harness-2", slots=3)]
    queued = [job(id, stage=Stage.PREPARE) for id in (1, 2, 3)]
    assert pairs(queued, workers) == [(1, "harness-2"), (2, "harness-2"), (3, "harness-1")]


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


def test_a_job_waits_while_another_evaluation_computes_what_it_asks() -> None:
    asks = frozenset({"mmlu", "arc"})
    busy = worker("engine-1", holding=(7,), answering=((7, frozenset({"mmlu"})),))
    queued = [job(1, asks=asks), job(2, asks=frozenset({"gsm8k"}))]
    assert pairs(queued, [busy, worker("engine-2", slots=2)]) == [(2, "engine-2")]
    answered = replace(busy, answering=((7, frozenset()),))
    assert [id for id, _ in pairs(queued, [answered, worker("engine-2", slots=2)])] == [1, 2]


def test_a_job_does_not_wait_for_answers_that_it_could_not_use() -> None:
    asks = frozenset({"mmlu"})
    busy = worker("engine-1", holding=(7,), answering=((7, asks),), device_type="cuda:1")
    free = [worker("engine-2", device_type="cuda:1"), worker("engine-3", device_type="cpu")]
    assert pairs([job(1, asks=asks)], [busy, *free]) == [(1, "engine-3")]
    bound = job(1, asks=asks, device_type="cuda:1")
    assert pairs([bound], [busy, *free]) == []
    assert pairs([job(1, asks=asks, device_type="cpu")], [busy, *free]) == [(1, "engine-3")]


def test_a_job_does_not_wait_for_one_that_is_not_computed_yet() -> None:
    asks = frozenset({"mmlu"})
    away = worker("engine-1", device_type="cuda:1", last_heartbeat=NOW - POLICY.silent_after * 2)
    queued = [job(1, asks=asks, device_type="cuda:1"), job(2, asks=asks)]
    assert pairs(queued, [away, worker("engine-2")]) == [(2, "engine-2")]


def test_those_that_wait_for_answers_keep_no_place_from_those_behind_them() -> None:
    asks = frozenset({"mmlu"})
    busy = worker("engine-1", holding=(7,), answering=((7, asks),))
    queued = [job(1, asks=asks), job(2, asks=asks), job(3), job(4, asks=frozenset({"arc"}))]
    assert pairs(queued, [busy, worker("engine-2")]) == [(3, "engine-2")]
    assert pairs(queued[:2] + queued[3:], [busy, worker("engine-2")]) == [(4, "engine-2")]


def test_of_jobs_that_ask_the_same_the_most_urgent_goes_first_and_slices_go_together() -> None:
    same = frozenset({"mmlu"})
    queued = [job(2, asks=same), job(1, asks=same), job(3, evaluation=1, asks=same)]
    assert [id for id, _ in pairs(queued, [worker(slots=3)])] == [1, 3]
    paused = replace(queued[1], not_before=NOW + timedelta(minutes=1))
    assert [id for id, _ in pairs([queued[0], paused], [worker(slots=3)])] == [2]


def test_a_heartbeat_from_before_the_hubs_clock_was_set_back_is_no_sign_of_life() -> None:
    assert pairs([job(1)], [worker(last_heartbeat=NOW + timedelta(hours=1))]) == []


def gpus(name: str = "engine-1", **fields: Any) -> WorkerView:
    given = {"device_type": "cuda", "device": "a GPU", "memory_bytes": 80 * GIB, "slots": 8, "device_count": 8}
    return worker(name, **(given | fields))


def needing(gib: float, **fields: Any) -> Footprint:
    return Footprint(**{"weight_bytes": gib * GIB, "heads": 64, "key_heads": 8, **fields})


def given(queued: list[QueuedJob], workers: list[WorkerView], **fields: Any) -> list[tuple[int, str, int]]:
    chosen = plan(queued, workers, POLICY, fields.pop("now", NOW), **fields)
    return [(one.job.id, one.worker.name, one.devices) for one in chosen]


def test_a_job_gets_the_fewest_gpus_that_hold_it() -> None:
    queued = [job(1, need=needing(130)), job(2, need=needing(10)), job(3, need=needing(260)), job(4)]
    assert given(queued, [gpus()]) == [(1, "engine-1", 2), (2, "engine-1", 1), (3, "engine-1", 4), (4, "engine-1", 1)]


def test_a_job_that_fits_on_no_worker_gets_none_and_holds_nobody_up() -> None:
    queued = [job(1, need=needing(1000)), job(2, need=needing(10))]
    assert given(queued, [gpus()]) == [(2, "engine-1", 1)]


def test_gpus_that_may_not_be_used_now_are_not_counted_on() -> None:
    assert given([job(1, need=needing(130))], [gpus(slots=1)]) == []
    assert given([job(1)], [gpus(slots=0)]) == []
    assert given([job(1, need=needing(130)), job(2)], [gpus(slots=3, holding=(9,), used=2)]) == [(2, "engine-1", 1)]


def test_small_jobs_leave_large_gpus_and_large_gaps_to_large_jobs() -> None:
    workers = [
        gpus("engine-1", memory_bytes=80 * GIB, slots=4),
        gpus("engine-2", memory_bytes=24 * GIB, slots=4),
        gpus("engine-3", memory_bytes=24 * GIB, slots=4, holding=(9,), used=2),
    ]
    queued = [job(1, need=needing(10)), job(2, need=needing(60))]
    assert given(queued, workers) == [(1, "engine-3", 1), (2, "engine-1", 1)]


def test_weights_larger_than_the_memory_of_a_host_do_not_go_to_its_cpu() -> None:
    small, large = worker("engine-1", memory_bytes=8 * GIB), worker("engine-2", memory_bytes=64 * GIB)
    assert given([job(1, need=needing(14))], [small, large]) == [(1, "engine-2", 1)]
    assert given([job(1, need=needing(14))], [small]) == []


def test_only_vllm_shares_a_model_out_over_gpus() -> None:
    one = gpus(engine=EngineFamily.TRANSFORMERS)
    queued = [job(1, engine=EngineFamily.TRANSFORMERS, need=needing(130))]
    assert given(queued, [one]) == []
    assert given([replace(queued[0], need=needing(30))], [one]) == [(1, "engine-1", 1)]


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
    assert hopeless(refused, [first, replace(second, stopping=True)], POLICY, NOW) == ["engine-1"]
    assert hopeless(refused, [small], POLICY, NOW) == []
    assert hopeless(job(1), [first], POLICY, NOW) == []


def test_a_warm_engine_gets_the_next_job_of_its_model_before_those_a_little_older() -> None:
    queued = [job(1, weights="aaa", created_at=NOW - timedelta(minutes=5)), job(2, weights="bbb")]
    warm = worker("engine-2", warm=("bbb",))
    assert given(queued, [warm]) == [(2, "engine-2", 1)]
    assert given(queued, [warm, worker("engine-1", weights=("bbb",))]) == [(2, "engine-2", 1), (1, "engine-1", 1)]
    older = replace(queued[0], created_at=NOW - timedelta(minutes=11))
    assert given([older, queued[1]], [warm]) == [(1, "engine-2", 1)]


SPEEDS = Speeds([Measure(EngineFamily.VLLM, "a GPU", "s", 32, 2, 6000, 60.0, 120.0)])
"""100 requests/s after a minute, by models of four to eight billion weights."""


def sized(id: int, requests: int, **fields: Any) -> QueuedJob:
    return job(id, suite="s", parameters=5_000_000_000, requests=requests, **fields)


def test_short_windows_are_filled_with_jobs_that_end_in_them() -> None:
    short = gpus(slots=1, until=NOW + timedelta(minutes=6))
    long = [sized(id, 600_000) for id in (1, 2)]
    assert given(long, [short], speeds=SPEEDS) == []
    assert given([*long, sized(3, 6000)], [short], speeds=SPEEDS) == [(3, "engine-1", 1)]
    open_end = gpus("engine-2", slots=1)
    # The small one takes the window and leaves the GPU without an end to a long one.
    queued = [sized(1, 6000), sized(2, 600_000)]
    assert given(queued, [open_end, short], speeds=SPEEDS) == [(1, "engine-1", 1), (2, "engine-2", 1)]


def test_a_window_that_is_long_enough_to_get_on_is_used_by_jobs_that_will_not_end_in_it() -> None:
    window = gpus(slots=1, until=NOW + timedelta(minutes=11))
    assert given([sized(1, 600_000)], [window], speeds=SPEEDS) == [(1, "engine-1", 1)]
    assert given([job(1)], [window]) == [(1, "engine-1", 1)]
    assert given([job(1)], [replace(window, until=NOW + timedelta(minutes=9))]) == []
    assert given([job(1)], [replace(window, until=NOW - timedelta(minutes=9))]) == []


def test_a_large_job_that_waited_long_has_a_worker_kept_free_for_it() -> None:
    waiting = NOW - timedelta(minutes=31)
    large = job(1, need=needing(260), created_at=waiting)
    small = [job(id, need=needing(10)) for id in range(2, 9)]
    fuller, freer = gpus("engine-1", slots=4, used=3, holding=(7,)), gpus("engine-2", slots=4, used=2, holding=(8,))
    planned = plan_round([large, *small], [fuller, freer], POLICY, NOW)
    assert [(one.job.id, one.worker.name) for one in planned.assignments] == [(2, "engine-1")]
    assert [(one.job.id, one.worker.name, one.devices) for one in planned.reserved] == [(1, "engine-2", 4)]
    fresh = replace(large, created_at=NOW - timedelta(minutes=29))
    assert len(plan([fresh, *small], [fuller, freer], POLICY, NOW)) == 3


def test_slices_stay_on_the_type_of_device_where_the_others_are_answered() -> None:
    bound = job(1, device_type="cuda", bound=True)
    assert given([bound], [worker("engine-1", device_type="cpu")]) == []
    assert given([bound], [worker("engine-1", device_type="cpu"), gpus("engine-2")]) == [(1, "engine-2", 1)]


moments = st.integers(-3600, 60).map(lambda seconds: NOW + timedelta(seconds=seconds))
footprints = st.none() | st.builds(
    Footprint,
    weight_bytes=st.sampled_from([5.0, 30.0, 60.0, 140.0, 600.0]).map(lambda gib: gib * GIB),
    cache_bytes=st.sampled_from([0.0, 200_000.0]),
    heads=st.sampled_from([1, 14, 64]),
    key_heads=st.sampled_from([1, 2, 8]),
)
job_lists = st.lists(
    st.builds(
        QueuedJob,
        id=st.integers(1, 10_000),
        evaluation=st.integers(1, 50),
        stage=st.sampled_from(Stage),
        engine=st.sampled_from(EngineFamily),
        created_at=moments,
        turn_at=st.none() | moments,
        not_before=st.none() | moments,
        device_type=st.sampled_from([None, "cpu", "cuda"]),
        weights=st.sampled_from(["", "aaa", "bbb", "ccc"]),
        need=footprints,
        longest=st.sampled_from([None, 100, 8000]),
        requests=st.integers(0, 100_000),
        suite=st.just("s"),
        parameters=st.sampled_from([None, 5_000_000_000]),
        failed_on=st.frozensets(st.text("abc", min_size=1, max_size=1)),
        refused_by=st.frozensets(st.tuples(st.text("abc", min_size=1, max_size=1), st.just("b")), max_size=2),
    ),
    max_size=25,
    unique_by=lambda job: job.id,
)
worker_lists = st.lists(
    st.builds(
        WorkerView,
        name=st.text("abcdef", min_size=1, max_size=2),
        boot=st.just("b"),
        kind=st.sampled_from(["harness", "engine"]),
        slots=st.integers(0, 8),
        last_heartbeat=moments,
        engine=st.sampled_from([None, *EngineFamily]),
        device_type=st.sampled_from([None, "cpu", "cuda"]),
        device=st.just("a GPU"),
        memory_bytes=st.sampled_from([None, 24 * GIB, 80 * GIB]),
        until=st.none() | moments | st.integers(0, 7200).map(lambda seconds: NOW + timedelta(seconds=seconds)),
        stopping=st.booleans(),
        holding=st.lists(st.integers(1, 50), max_size=5).map(tuple),
        used=st.none() | st.integers(0, 9),
        weights=st.lists(st.sampled_from(["aaa", "bbb", "ccc"]), max_size=3, unique=True).map(tuple),
        warm=st.lists(st.sampled_from(["aaa", "bbb", "ccc"]), max_size=2, unique=True).map(tuple),
    ),
    max_size=8,
    unique_by=lambda worker: worker.name,
)


@settings(BUSY)
@given_(job_lists, worker_lists)
def test_no_worker_ever_gets_more_than_its_free_slots_or_what_does_not_fit(
    queued: list[QueuedJob], workers: list[WorkerView]
) -> None:
    chosen = plan(queued, workers, POLICY, NOW, speeds=SPEEDS)
    assert len({assignment.job.id for assignment in chosen}) == len(chosen)
    for each in workers:
        there = [assignment for assignment in chosen if assignment.worker == each]
        assert sum(one.devices for one in there) <= each.free_slots
        if there:
            assert is_live(each, POLICY, NOW)
        for one in there:
            assert pool_for(one.job) == pool_of(each)
            assert one.job.not_before is None or one.job.not_before <= NOW
            assert (each.name, each.boot) not in one.job.refused_by
            place = place_of(each, NOW)
            assert one.devices == place.devices_for(one.job.need, one.job.longest) > 0
            if each.until is not None and each.until - NOW < POLICY.useful_window:
                expected = SPEEDS.of(one.job, device_key(each.device, one.devices))
                assert expected is not None
                assert NOW + expected.total <= each.until


@settings(BUSY)
@given_(job_lists, worker_lists)
def test_no_fitting_job_waits_while_a_worker_idles_and_none_is_overtaken_where_it_fits(
    queued: list[QueuedJob], workers: list[WorkerView]
) -> None:
    queued = [replace(job, device_type=None, weights="") for job in queued]
    planned = plan_round(queued, workers, POLICY, NOW)
    chosen = {one.job.id for one in planned.assignments}
    kept = {one.worker.name for one in planned.reserved}
    for job in queued:
        if job.id in chosen or (job.not_before is not None and job.not_before > NOW):
            continue
        for each in workers:
            there = [one for one in planned.assignments if one.worker == each]
            devices = place_of(each, NOW).devices_for(job.need, job.longest)
            usable = is_live(each, POLICY, NOW) and pool_for(job) == pool_of(each) and each.name not in kept
            short = each.until is not None and each.until - NOW < POLICY.useful_window
            if usable and devices and not short and (each.name, each.boot) not in job.refused_by:
                assert each.free_slots - sum(one.devices for one in there) < devices
                # What is less urgent got only what this job could not use.
                less = sum(one.devices for one in there if urgency(one.job) > urgency(job))
                assert each.free_slots - sum(one.devices for one in there) + less < devices or devices > 1


@settings(BUSY)
@given_(job_lists, worker_lists, st.randoms(use_true_random=False))
def test_the_plan_does_not_depend_on_the_order_of_rows(
    queued: list[QueuedJob], workers: list[WorkerView], random: Any
) -> None:
    expected = plan_round(queued, workers, POLICY, NOW, speeds=SPEEDS)
    random.shuffle(queued)
    random.shuffle(workers)
    assert plan_round(queued, workers, POLICY, NOW, speeds=SPEEDS) == expected


class Served(NamedTuple):
    job: QueuedJob
    worker: str
    devices: int
    until: int


@given_(
    st.lists(st.tuples(st.sampled_from([10.0, 60.0, 130.0, 260.0]), st.integers(1, 4)), min_size=1, max_size=12),
    st.sampled_from([10.0, 130.0]),
    st.lists(st.sampled_from([2, 4, 8]), min_size=1, max_size=3),
    st.integers(1, 3),
)
@settings(BUSY, max_examples=60)
def test_nothing_starves_however_many_jobs_keep_coming(
    first: list[tuple[float, int]], coming: float, hosts: list[int], length: int
) -> None:
    """Time goes by in steps of ten minutes, in each of which more work comes than the workers can do."""
    queued = {id: job(id, need=needing(gib)) for id, (gib, _) in enumerate(first, 1)}
    lasting = {id: length for id, (_, length) in enumerate(first, 1)}
    running: list[Served] = []
    started: set[int] = set()
    largest = max(hosts)
    fitting = {id for id, one in queued.items() if place_of(gpus(slots=largest), NOW).devices_for(one.need, None)}
    for step in range(200):
        now = NOW + step * timedelta(minutes=10)
        running = [one for one in running if one.until > step]
        workers = [
            gpus(
                f"engine-{number}",
                slots=slots,
                last_heartbeat=now,
                used=sum(one.devices for one in running if one.worker == f"engine-{number}"),
            )
            for number, slots in enumerate(hosts)
        ]
        for number in range(2 * sum(hosts)):
            new = 1000 * (step + 1) + number
            queued[new] = job(new, need=needing(coming), created_at=now)
            lasting[new] = length
        for one in plan(queued.values(), workers, POLICY, now):
            started.add(one.job.id)
            del queued[one.job.id]
            running.append(Served(one.job, one.worker.name, one.devices, step + lasting[one.job.id]))
        if fitting <= started:
            return
    raise AssertionError(f"{sorted(fitting - started)} never started")


def test_a_large_yard_is_planned_in_well_under_a_second() -> None:
    queued = [
        job(
            id,
            created_at=NOW - timedelta(seconds=id % 977),
            weights=str(id % 1009),
            need=needing(5 + id % 331),
            failed_on=frozenset({"engine-1"} if id % 50 == 0 else ()),
        )
        for id in range(100_000)
    ]
    workers = [
        gpus(f"engine-{number}", slots=1 << number % 4, weights=(str(number), str(number + 7)))
        for number in range(1000)
    ]
    start = process_time()
    assert len(plan(queued, workers, POLICY, NOW)) > 1000
    # CPU time, as other programs may run beside this one; on an idle machine about 0.3 s.
    assert process_time() - start < 2.0


def test_a_job_goes_back_to_a_worker_that_it_failed_on_only_when_no_other_is_free() -> None:
    having, other = worker("engine-1", weights=("c0ffee",)), worker("engine-2")
    retried = job(1, weights="c0ffee", failed_on=frozenset({"engine-1"}))

    assert pairs([retried], [having, other]) == [(1, "engine-2")]
    assert pairs([retried], [having]) == [(1, "engine-1")]
    assert pairs([replace(retried, device_type="cpu")], [having, other]) == [(1, "engine-2")]
