"""Which job goes first, and to which kind of worker."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.scheduling.places import urgency
from orchestrator.scheduling.scheduler import plan, plan_round
from orchestrator.wire import EngineFamily, Stage
from tests.orchestrator.scheduling.builders import NOW, POLICY, gpus, job, needing, pairs, worker


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


def in_order(number: int) -> int:
    return number


def backwards(number: int) -> int:
    return -number


def jumbled(number: int) -> int:
    return number * 7919 % 5003


def all_alike(_: int) -> int:
    return 0


def late_but_for_those_that_are_sampled(number: int) -> int:
    return number if number % 7 else 0


@pytest.mark.parametrize("turn", [in_order, backwards, jumbled, all_alike, late_but_for_those_that_are_sampled])
@pytest.mark.parametrize("slots", [1, 40, 2000])
def test_of_a_long_queue_the_same_are_chosen_in_whatever_order_it_comes(turn: Callable[[int], int], slots: int) -> None:
    queued = [job(id, created_at=NOW + timedelta(seconds=turn(id))) for id in range(4000)]
    first = sorted(queued, key=urgency)[:slots]
    assert [id for id, _ in pairs(queued, [worker(slots=slots)])] == [one.id for one in first]


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


def test_a_heartbeat_from_before_the_hubs_clock_was_set_back_is_no_sign_of_life() -> None:
    assert pairs([job(1)], [worker(last_heartbeat=NOW + timedelta(hours=1))]) == []


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
