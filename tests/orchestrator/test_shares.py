"""The largest share of the GPUs: nothing new starts above it, and nothing waits for ever below it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.footprint import GIB, Footprint
from orchestrator.scheduling.places import Policy, QueuedJob, WorkerView
from orchestrator.scheduling.room import Assignment, Reserved
from orchestrator.scheduling.scheduler import plan_round
from orchestrator.shares import first_within_share, share_of, within_share
from orchestrator.wire import EngineFamily, Stage

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HALF = Policy(gpu_share=0.5)


def host(name: str, *, gpus: int = 4, used: int = 0, slots: int | None = None, **changes: Any) -> WorkerView:
    fields = {
        "boot": "b1",
        "kind": "engine",
        "engine": EngineFamily.VLLM,
        "device_type": "cuda",
        "last_heartbeat": NOW,
        "device_count": gpus,
        "slots": gpus if slots is None else slots,
        "used": used,
        "holding": tuple(range(used)),
    }
    return WorkerView(name=name, **(fields | changes))


def job(number: int) -> QueuedJob:
    return QueuedJob(id=number, evaluation=number, stage=Stage.INFER, engine=EngineFamily.VLLM, created_at=NOW)


def given_out(workers: list[WorkerView], policy: Policy, count: int = 20) -> int:
    share = share_of(workers, policy, NOW)
    planned = plan_round([job(number) for number in range(count)], within_share(workers, share), policy, NOW)
    return len(first_within_share(planned.assignments, planned.reserved, share))


def test_half_of_all_gpus_are_given_out_and_no_more() -> None:
    assert given_out([host("a"), host("b")], HALF) == 4
    assert given_out([host("a", used=2), host("b", used=1)], HALF) == 1
    assert given_out([host("a", used=4), host("b", used=1)], HALF) == 0, "what runs above it goes on"
    assert given_out([host("a"), host("b")], Policy()) == 8


def test_gpus_that_others_use_count_and_those_of_silent_workers_do_not() -> None:
    assert given_out([host("a", slots=1), host("b", slots=4)], HALF) == 4
    silent = host("b", last_heartbeat=datetime(2026, 11, 22, 11, tzinfo=UTC))
    assert given_out([host("a"), silent], HALF) == 2


def test_workers_on_a_cpu_are_not_limited() -> None:
    cpu = host("c", gpus=1, device_type="cpu")
    assert given_out([cpu], Policy(gpu_share=0.1)) == 1


def test_what_a_worker_is_kept_free_for_keeps_its_part_of_the_share() -> None:
    workers = [host("a", used=3), host("b")]
    share = share_of(workers, HALF, NOW)
    assert share is not None
    assert share.room == 1
    small = Assignment(job(1), workers[1])
    assert first_within_share([small], [], share) == [small]
    assert first_within_share([small], [Reserved(job(2), workers[1], 2)], share) == []


def test_the_sentence_says_what_is_held_and_what_may_be() -> None:
    share = share_of([host("a", used=4), host("b")], HALF, NOW)
    assert share is not None
    assert share.sentence == "Evalyard holds 4 of the 8 GPUs, and may hold 4 (EVALYARD_GPU_SHARE)."


@given(
    st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8), st.integers(0, 8)), max_size=6),
    st.floats(0.05, 1.0),
)
def test_new_work_never_takes_the_share_over_its_limit(hosts: list[tuple[int, int, int]], part: float) -> None:
    policy = Policy(gpu_share=part)
    workers = [
        host(f"w{number}", gpus=gpus, slots=min(slots, gpus), used=min(used, gpus))
        for number, (gpus, slots, used) in enumerate(hosts)
    ]
    gpus, used = sum(one.device_count for one in workers), sum(one.used or 0 for one in workers)
    new = given_out(workers, policy, count=64)
    free = sum(one.free_slots for one in workers)
    assert new == min(free, max(int(part * gpus) - used, 0) if part < 1 else free)


def test_a_model_that_needs_more_than_the_share_ever_allows_stops_nobody_else() -> None:
    quarter = Policy(gpu_share=0.25)
    hosts = [host("a", gpus=8, memory_bytes=80 * GIB)]
    share = share_of(hosts, quarter, NOW)
    assert share is not None
    large = replace(job(1), need=Footprint(260 * GIB, 0.0, 64, 8), created_at=NOW - timedelta(hours=1))
    planned = plan_round([large, job(2)], within_share(hosts, share), quarter, NOW)
    kept = first_within_share(planned.assignments, planned.reserved, share)
    assert [one.job.id for one in kept] == [2]
    assert planned.reserved == []
    assert share.is_too_small(large, hosts)
    assert not share.is_too_small(job(2), hosts)
    assert not share.is_too_small(large, [*hosts, host("c", device_type="cpu")])
