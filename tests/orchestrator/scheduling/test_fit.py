"""Where a model fits, on how many GPUs, and in how much time."""

from dataclasses import replace
from datetime import timedelta

from orchestrator.footprint import GIB
from orchestrator.wire import EngineFamily
from tests.orchestrator.scheduling.builders import NOW, SPEEDS, given, gpus, job, needing, sized, worker


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
