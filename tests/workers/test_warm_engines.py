"""Devices and engines that outlive their work, with real stage programs under a real supervisor."""

import os
import signal
import time
from pathlib import Path

import pytest

from orchestrator.wire import FailureKind
from tests.services import environment_of, wait_until
from tests.workers.bench import IDENTITY, Bench, slow
from workers.engine.scripted import answer
from workers.sheets import Loglikelihood, loglikelihood_id


def asked(first: int, count: int, *, length: int = 2) -> list[Loglikelihood]:
    """Requests like those of the bench, none of which it asks."""
    contexts = [[7] * (length - 1) + [number] for number in range(first, first + count)]
    return [Loglikelihood(loglikelihood_id(context, [5, 6]), context, [5, 6]) for context in contexts]


def test_the_next_work_of_a_model_is_answered_by_the_engine_that_is_up(bench: Bench) -> None:
    devices = bench.give_devices(1)
    bench.supervisor.run(bench.order("a1"))
    first, engine = bench.done(), devices.groups()
    more = asked(0, 30)

    bench.supervisor.run(bench.order("a2", sheets=bench.add_sheet("MMLU", more)))

    assert len(engine) == 1
    assert devices.groups() == engine
    assert devices.warm() == (bench.model.revision,)
    assert (first.computed, first.tokens_computed) == (40, 160)
    assert (bench.done().computed, bench.done().reused, bench.done().tokens_computed) == (30, 0, 120)
    assert sorted(bench.answered()) == sorted(request.id for request in bench.requests + more)
    assert {header.attempt for header in bench.headers()} == {"a1", "a2"}
    assert bench.hub.events == ["started", "completed"] * 2


def test_a_warm_engine_answers_as_a_cold_one(bench: Bench) -> None:
    bench.give_devices(1)
    bench.supervisor.run(bench.order("a1"))
    more = asked(0, 30)
    bench.supervisor.run(bench.order("a2", sheets=bench.add_sheet("MMLU", more)))
    by_id = {response.id: response for response in bench.responses()}
    assert [by_id[request.id] for request in more] == [answer(request) for request in more]


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"batch": 3}},
        {"identity": IDENTITY | {"dtype": "float16"}},
        {"devices": 2},
    ],
)
def test_work_for_which_another_engine_would_be_started_gets_it(bench: Bench, changes: dict) -> None:
    devices = bench.give_devices(2)
    bench.supervisor.run(bench.order("a1"))
    engine = set(devices.groups().values())
    bench.supervisor.run(bench.order("a2", **changes, sheets=bench.add_sheet("MMLU", asked(0, 30))))
    assert bench.done().computed == 30
    assert set(devices.groups().values()) - engine


def test_a_request_that_is_too_long_for_the_engine_that_is_up_gets_one_of_its_own(bench: Bench) -> None:
    devices = bench.give_devices(1)
    bench.supervisor.run(bench.order("a1"))
    engine = devices.groups()
    bench.supervisor.run(bench.order("a2", sheets=bench.add_sheet("LONG", asked(0, 4, length=50))))
    assert (bench.done().computed, bench.done().restarts) == (4, ())
    assert devices.groups() != engine


def test_no_engine_is_kept_where_none_is_to_be(bench: Bench) -> None:
    devices = bench.give_devices(1, worker_warm_seconds=0)
    bench.supervisor.run(bench.order("a1"))
    assert (bench.done().computed, devices.groups()) == (40, {})


def test_an_engine_ends_when_nothing_came_for_it(bench: Bench) -> None:
    devices = bench.give_devices(1, worker_warm_seconds=0.1)
    bench.supervisor.run(bench.order("a1"))
    wait_until(lambda: not devices.groups(), "the engine has ended")


def test_a_failed_work_leaves_no_engine(bench: Bench) -> None:
    devices = bench.give_devices(1)
    bench.supervisor.run(bench.order("a1", settings={"nan_at": 6, "batch": 4}))
    assert (bench.hub.updates[-1].failure, devices.groups()) == (FailureKind.INVALID_OUTPUT, {})


def test_a_stopped_work_leaves_no_engine(bench: Bench) -> None:
    devices = bench.give_devices(1)
    running = bench.start(bench.order("a1", settings=slow(0.2)))
    wait_until(lambda: bench.answered(), "some responses are sealed")
    bench.hub.stops["a1"] = "Cancelled on request."
    running.join()
    assert (bench.hub.events, devices.groups()) == (["started", "released"], {})


def test_a_request_that_kills_a_warm_engine_is_found_as_in_a_cold_one_and_no_engine_stays(bench: Bench) -> None:
    devices = bench.give_devices(1)
    more = asked(0, 30)
    culprit = more[7].id
    settings = {"dies_at": culprit, "batch": 4}
    bench.supervisor.run(bench.order("a1", settings=settings))
    assert devices.groups() != {}

    bench.supervisor.run(bench.order("a2", settings=settings, sheets=bench.add_sheet("MMLU", more)))

    assert [one.requests for one in bench.done().unanswered] == [(culprit,)]
    assert len(bench.done().restarts) == 2
    assert set(bench.answered()) == {request.id for request in bench.requests + more} - {culprit}
    assert devices.groups() == {}


def test_a_work_that_fails_when_it_is_given_to_an_engine_leaves_none(bench: Bench) -> None:
    devices = bench.give_devices(1)
    bench.supervisor.run(bench.order("a1"))
    (bench.scratch / "test" / "a2" / "out.work.json").mkdir(parents=True)
    bench.supervisor.run(bench.order("a2"))
    assert (bench.hub.updates[-1].failure, bench.hub.updates[-1].log_tail) == (FailureKind.STORAGE, "")
    assert (devices.groups(), bench.stage_pids()) == ({}, {})


def test_a_work_whose_sheets_are_not_there_leaves_the_idle_engine_alone(bench: Bench) -> None:
    devices = bench.give_devices(1)
    bench.supervisor.run(bench.order("a1"))
    engine = devices.groups()
    bench.supervisor.run(bench.order("a2", sheets={"ARC": "sheets/9/ARC/p"}))
    assert (bench.hub.updates[-1].failure, bench.hub.updates[-1].log_tail) == (FailureKind.STORAGE, "")
    assert devices.groups() == engine != {}


def test_an_engine_that_was_killed_while_it_was_idle_costs_its_next_work_nothing(bench: Bench) -> None:
    devices = bench.give_devices(1)
    bench.supervisor.run(bench.order("a1"))
    os.kill(devices.groups()[0], signal.SIGKILL)
    bench.supervisor.run(bench.order("a2", sheets=bench.add_sheet("MMLU", asked(0, 30))))
    assert (bench.done().computed, bench.done().restarts) == (30, ())


def test_an_order_for_which_no_device_is_free_is_given_back_at_once(bench: Bench) -> None:
    devices = bench.give_devices(2)
    devices.withhold(1, "busy: another user's process 4211")
    bench.supervisor.run(bench.order("a1", devices=2))
    released = bench.hub.updates[-1]
    assert (released.event, released.failure, released.preempted) == ("released", None, False)
    assert released.sentence == "This worker has not 2 of its 2 devices free at the moment."


def test_each_attempt_sees_the_devices_that_it_was_given_and_no_others(bench: Bench) -> None:
    devices = bench.give_devices(3, names=("5", "GPU-aa", "7"))
    both = [
        bench.start(bench.order("a1", settings=slow(0.2), devices=2)),
        bench.start(bench.order("a2", settings=slow(0.2))),
    ]
    wait_until(lambda: len(devices.groups()) == 3, "both stages run")
    seen = {index: environment_of(pid)["CUDA_VISIBLE_DEVICES"] for index, pid in devices.groups().items()}
    bench.supervisor.stopping.set()
    for one in both:
        one.join()
    assert sorted(",".join(sorted(set(seen.values()))).split(",")) == ["5", "7", "GPU-aa"]
    assert all(devices.names[index] in visible.split(",") for index, visible in seen.items())


def test_devices_that_others_want_are_left_with_all_that_is_answered_sealed(bench: Bench) -> None:
    devices = bench.give_devices(2)
    wanted = bench.start(bench.order("a1", settings=slow(0.2)))
    wait_until(lambda: bench.answered(), "some responses are sealed")
    other = bench.start(bench.order("a2", settings=slow(0.2), sheets=bench.add_sheet("MMLU", asked(0, 60))))
    wait_until(lambda: len(devices.groups()) == 2, "both stages run")
    (index,) = [index for index in (0, 1) if devices.attempts([index]) == {"a1"}]

    devices.withhold(index, "busy: another user's process 4211")
    bench.supervisor.preempt([index], "Another user's process 4211 wants the GPU.")

    wanted.join()
    released = bench.hub.updates[-1]
    assert (released.attempt, released.event, released.preempted) == ("a1", "released", True)
    assert released.sentence == "Another user's process 4211 wants the GPU."
    assert (devices.usable(), list(devices.groups())) == (1, [1 - index])
    assert other.is_alive()
    bench.hub.stops["a2"] = "enough"
    other.join()


def test_a_device_is_left_within_the_grace_though_the_artifact_store_hangs(bench: Bench) -> None:
    """The thread that listens may be waiting for the store; the device is wanted all the same."""
    devices = bench.give_devices(1)
    running = bench.start(bench.order("a1", settings=slow(0.2)))
    wait_until(lambda: bench.answered(), "some responses are sealed")
    target = Path(bench.store.url.removeprefix("file://")) / "responses"
    target.rename(target.with_name("away"))
    target.write_text("a file, where segments would be put")
    began = time.monotonic()
    wait_until(lambda: "a1" in bench.supervisor.progress(), "it runs")
    pid = devices.groups()[0]
    bench.supervisor.preempt([0], "wanted")
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the stage is gone", seconds=10)
    assert time.monotonic() - began < 10
    target.unlink()
    target.with_name("away").rename(target)
    running.join()
    assert bench.hub.updates[-1].preempted


def test_an_idle_engine_ends_at_once_when_its_device_is_wanted(bench: Bench) -> None:
    devices = bench.give_devices(1)
    bench.supervisor.run(bench.order("a1"))
    pid = devices.groups()[0]
    bench.supervisor.preempt([0], "wanted")
    wait_until(lambda: not devices.groups(), "the engine has ended", seconds=5)
    assert not Path(f"/proc/{pid}").exists()
