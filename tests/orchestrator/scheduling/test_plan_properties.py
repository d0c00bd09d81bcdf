"""What holds of every plan, whatever waits and whoever is there."""

from dataclasses import replace
from datetime import timedelta
from time import process_time
from typing import Any, NamedTuple

from hypothesis import given as given_
from hypothesis import settings
from hypothesis import strategies as st

from orchestrator.scheduling.estimates import device_key
from orchestrator.scheduling.places import QueuedJob, WorkerView, is_live, place_of, pool_for, pool_of, urgency
from orchestrator.scheduling.scheduler import plan, plan_round
from tests.orchestrator.scheduling.builders import (
    BUSY,
    NOW,
    POLICY,
    SPEEDS,
    gpus,
    job,
    job_lists,
    needing,
    worker_lists,
)


class Served(NamedTuple):
    job: QueuedJob
    worker: str
    devices: int
    until: int


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
    queued = [replace(one, device_type=None, weights="") for one in queued]
    planned = plan_round(queued, workers, POLICY, NOW)
    chosen = {one.job.id for one in planned.assignments}
    kept = {one.worker.name for one in planned.reserved}
    for one_job in queued:
        if one_job.id in chosen or (one_job.not_before is not None and one_job.not_before > NOW):
            continue
        for each in workers:
            there = [one for one in planned.assignments if one.worker == each]
            devices = place_of(each, NOW).devices_for(one_job.need, one_job.longest)
            usable = is_live(each, POLICY, NOW) and pool_for(one_job) == pool_of(each) and each.name not in kept
            short = each.until is not None and each.until - NOW < POLICY.useful_window
            if usable and devices and not short and (each.name, each.boot) not in one_job.refused_by:
                assert each.free_slots - sum(one.devices for one in there) < devices
                # What is less urgent got only what this job could not use.
                less = sum(one.devices for one in there if urgency(one.job) > urgency(one_job))
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
