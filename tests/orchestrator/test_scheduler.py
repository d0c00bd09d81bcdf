from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.scheduler import (
    Policy,
    QueuedJob,
    WorkerView,
    forecast,
    is_live,
    plan,
    pool_for,
    pool_of,
    reason,
    reasons,
    urgency,
)
from orchestrator.wire import EngineFamily, Stage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
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


def test_higher_priority_goes_first_then_the_older_evaluation_then_the_earlier_job() -> None:
    old, new = NOW - timedelta(hours=1), NOW
    queued = [
        job(1, created_at=new),
        job(2, created_at=old),
        job(3, created_at=new, priority=5),
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
        assert reasons([job(1, device_type="cuda")], workers, POLICY, NOW) == {
            1: "Waits for a worker on cuda, where its earlier responses were computed."
        }
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
    assert reasons(queued, [busy, worker("engine-2", slots=2)], POLICY, NOW) == {
        1: "Waits for evaluation 7, which computes some of the same answers.",
        2: "Next: it starts in a moment.",
    }
    answered = replace(busy, answering=((7, frozenset()),))
    assert [id for id, _ in pairs(queued, [answered, worker("engine-2", slots=2)])] == [1, 2]


def test_a_job_does_not_wait_for_answers_that_it_could_not_use() -> None:
    asks = frozenset({"mmlu"})
    busy = worker("engine-1", holding=(7,), answering=((7, asks),), device_type="cuda:1")
    free = [worker("engine-2", device_type="cuda:1"), worker("engine-3", device_type="cpu")]
    assert pairs([job(1, asks=asks)], [busy, *free]) == [(1, "engine-3")]
    bound = job(1, asks=asks, device_type="cuda:1")
    assert pairs([bound], [busy, *free]) == []
    assert reasons([bound], [busy, *free], POLICY, NOW)[1].startswith("Waits for evaluation 7")
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


def test_every_waiting_job_has_its_reason() -> None:
    queued = [
        job(1, evaluation=5),
        job(2, evaluation=6),
        job(3, evaluation=7),
        job(4, stage=Stage.PREPARE),
        job(5, not_before=NOW + timedelta(seconds=40)),
        job(6, engine=EngineFamily.SCRIPTED),
    ]
    workers = [worker(holding=(4,)), worker("engine-2", engine=EngineFamily.SCRIPTED)]
    assert reasons(queued, workers, POLICY, NOW) == {
        1: "1 ahead; the vllm engine worker is busy with evaluation 4.",
        2: "2 ahead; the vllm engine worker is busy with evaluation 4.",
        3: "3 ahead; the vllm engine worker is busy with evaluation 4.",
        4: "No harness worker is connected.",
        5: "Tried again in 40 s.",
        6: "Next: it starts in a moment.",
    }
    assert reason(queued[2], queued=queued, workers=workers, policy=POLICY, now=NOW).startswith("3 ahead;")


def test_several_busy_workers_are_counted() -> None:
    workers = [worker("engine-1", holding=(4,)), worker("engine-2", holding=(5,))]
    assert reasons([job(1)], workers, POLICY, NOW) == {1: "2 ahead; all 2 vllm engine workers are busy."}


def test_a_place_counts_evaluations_and_those_that_run_among_them() -> None:
    queued = [job(n, evaluation=1 if n < 4 else 2, stage=Stage.PREPARE) for n in range(1, 6)]
    workers = [worker(kind="harness", engine=None, holding=(1,))]
    assert reasons(queued, workers, POLICY, NOW) == {
        **dict.fromkeys((1, 2, 3), "First; the harness worker is busy with evaluation 1."),
        **dict.fromkeys((4, 5), "1 ahead; the harness worker is busy with evaluation 1."),
    }


moments = st.integers(-3600, 60).map(lambda seconds: NOW + timedelta(seconds=seconds))
job_lists = st.lists(
    st.builds(
        QueuedJob,
        id=st.integers(1, 10_000),
        evaluation=st.integers(1, 50),
        stage=st.sampled_from(Stage),
        engine=st.sampled_from(EngineFamily),
        created_at=moments,
        priority=st.integers(-2, 2),
        not_before=st.none() | moments,
        device_type=st.sampled_from([None, "cpu", "cuda"]),
        weights=st.sampled_from(["", "aaa", "bbb", "ccc"]),
    ),
    max_size=40,
    unique_by=lambda job: job.id,
)
worker_lists = st.lists(
    st.builds(
        WorkerView,
        name=st.text("abcdef", min_size=1, max_size=4),
        boot=st.just("b"),
        kind=st.sampled_from(["harness", "engine"]),
        slots=st.integers(0, 4),
        last_heartbeat=moments,
        engine=st.sampled_from([None, *EngineFamily]),
        device_type=st.sampled_from([None, "cpu", "cuda"]),
        stopping=st.booleans(),
        holding=st.lists(st.integers(1, 50), max_size=5).map(tuple),
        weights=st.lists(st.sampled_from(["aaa", "bbb", "ccc"]), max_size=3, unique=True).map(tuple),
    ),
    max_size=8,
    unique_by=lambda worker: worker.name,
)


@given(job_lists, worker_lists)
def test_no_worker_ever_gets_more_than_its_free_slots_or_what_does_not_fit(
    queued: list[QueuedJob], workers: list[WorkerView]
) -> None:
    chosen = plan(queued, workers, POLICY, NOW)
    assert len({assignment.job.id for assignment in chosen}) == len(chosen)
    for each in workers:
        given = [assignment.job for assignment in chosen if assignment.worker == each]
        assert len(given) <= each.free_slots
        if given:
            assert is_live(each, POLICY, NOW)
        assert all(pool_for(job) == pool_of(each) for job in given)
        assert all(job.not_before is None or job.not_before <= NOW for job in given)


@given(job_lists, worker_lists)
def test_no_fitting_job_waits_while_a_slot_is_free_and_none_is_overtaken(
    queued: list[QueuedJob], workers: list[WorkerView]
) -> None:
    queued = [replace(job, device_type=None) for job in queued]
    chosen = plan(queued, workers, POLICY, NOW)
    taken = {assignment.job.id for assignment in chosen}
    ready = [job for job in queued if job.not_before is None or job.not_before <= NOW]
    for pool in {pool_for(job) for job in ready}:
        free = sum(each.free_slots for each in workers if pool_of(each) == pool and is_live(each, POLICY, NOW))
        mine = sorted((job for job in ready if pool_for(job) == pool), key=urgency)
        assert [job.id for job in mine if job.id in taken] == [job.id for job in mine][:free]


@given(job_lists, worker_lists, st.randoms(use_true_random=False))
def test_the_plan_does_not_depend_on_the_order_of_rows(
    queued: list[QueuedJob], workers: list[WorkerView], random: Any
) -> None:
    expected = plan(queued, workers, POLICY, NOW)
    random.shuffle(queued)
    random.shuffle(workers)
    assert plan(queued, workers, POLICY, NOW) == expected


@given(job_lists, worker_lists)
def test_every_queued_job_has_a_reason_and_those_chosen_are_next(
    queued: list[QueuedJob], workers: list[WorkerView]
) -> None:
    found = reasons(queued, workers, POLICY, NOW)
    assert set(found) == {job.id for job in queued}
    chosen = {assignment.job.id for assignment in plan(queued, workers, POLICY, NOW)}
    assert {id for id, text in found.items() if text.startswith("Next")} == chosen


def test_a_large_yard_is_planned_in_well_under_a_second() -> None:
    queued = [
        job(id, created_at=NOW - timedelta(seconds=id % 977), priority=id % 3, weights=str(id % 1009))
        for id in range(100_000)
    ]
    workers = [worker(f"engine-{number}", weights=(str(number), str(number + 7))) for number in range(1000)]
    start = perf_counter()
    assert len(plan(queued, workers, POLICY, NOW)) == 1000
    # The bound on an idle machine is 0.3 s; a busy one gets slack.
    assert perf_counter() - start < 2.0


def test_a_job_goes_back_to_a_worker_that_it_failed_on_only_when_no_other_is_free() -> None:
    having, other = worker("engine-1", weights=("c0ffee",)), worker("engine-2")
    retried = job(1, weights="c0ffee", failed_on=frozenset({"engine-1"}))

    assert pairs([retried], [having, other]) == [(1, "engine-2")]
    assert pairs([retried], [having]) == [(1, "engine-1")]
    assert pairs([replace(retried, device_type="cpu")], [having, other]) == [(1, "engine-2")]
