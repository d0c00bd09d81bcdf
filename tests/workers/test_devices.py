"""Who holds which device, with a real idle process as the warm engine."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.wire import EngineFamily, EngineInfo
from tests.services import wait_until
from tests.workers.engine.factories import infer_work, letter_choice, write_sheet
from workers import child
from workers.devices import Devices, names_of
from workers.warm import WarmEngine, engine_key

LONG = 600.0

GPUS = EngineInfo(family=EngineFamily.VLLM, version="1", device_type="cuda", device="a GPU", device_count=2)

Idle = Callable[..., WarmEngine]


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Idle]:
    """Makes real infer programs that have ended their work and wait for the next."""
    made: list[WarmEngine] = []

    def make(key: str = "k", *, weights: str = "commit") -> WarmEngine:
        folder = tmp_path / str(len(made))
        work = infer_work({"A": write_sheet(folder / "sheet", letter_choice(1))})
        running = child.start(work, folder / "out", log=tmp_path / "log", stay=True)
        while running.running():
            running.events(timeout=10)
        assert running.idle()
        made.append(WarmEngine(running, key, weights))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def test_a_device_is_given_to_one_attempt_at_a_time() -> None:
    devices = Devices(3)
    first, second = devices.take("a1", 2), devices.take("a2", 1)
    assert first is not None
    assert second is not None
    assert sorted([*first.indices, *second.indices]) == [0, 1, 2]
    assert devices.take("a3", 1) is None
    devices.free("a1")
    third = devices.take("a3", 2)
    assert third is not None
    assert sorted(third.indices) == sorted(first.indices)


def test_a_withheld_device_is_nobodys_until_it_is_allowed_again() -> None:
    devices = Devices(2)
    devices.take("a1", 1)
    devices.withhold(1, "busy: another user's process 4211")
    assert (devices.usable(), devices.take("a2", 1)) == (1, None)
    assert devices.withheld() == {1: "busy: another user's process 4211"}
    assert devices.attempts([0, 1]) == {"a1"}
    devices.allow(1)
    assert devices.take("a2", 1) is not None


def test_a_process_group_is_told_for_each_device_of_its_attempt() -> None:
    devices = Devices(3)
    taken = devices.take("a1", 2)
    assert taken is not None
    devices.started("a1", 4711, "commit")
    assert devices.groups() == dict.fromkeys(taken.indices, 4711)
    assert devices.warm() == ("commit",)
    devices.free("a1")
    assert (devices.groups(), devices.warm()) == ({}, ())


def test_an_idle_engine_is_given_to_work_of_its_key_and_size_and_is_first_among_the_warm(idle: Idle) -> None:
    devices = Devices(3)
    devices.take("a1", 1)
    devices.started("a1", 1, "busy-commit")
    devices.take("a2", 1)
    engine = idle("mmlu", weights="idle-commit")
    devices.started("a2", engine.child.pid, "idle-commit")
    devices.park("a2", engine, seconds=LONG)
    assert devices.warm() == ("idle-commit", "busy-commit")

    taken = devices.take("a3", 1, key="mmlu")

    assert taken is not None
    assert (taken.indices, taken.engine) == ((1,), engine)
    assert engine.child.idle()


def test_other_work_takes_free_devices_first_and_then_ends_the_engine_in_its_way(idle: Idle) -> None:
    devices = Devices(2)
    devices.take("a1", 1)
    engine = idle("mmlu")
    devices.park("a1", engine, seconds=LONG)

    first = devices.take("a2", 1, key="other")
    assert first is not None
    assert (first.indices, first.engine) == ((1,), None)
    assert engine.child.alive()

    second = devices.take("a3", 1, key="other")
    assert second is not None
    assert (second.indices, second.engine) == ((0,), None)
    assert not engine.child.alive()


def test_devices_that_an_ended_engine_leaves_over_are_free(idle: Idle) -> None:
    devices = Devices(2)
    devices.take("a1", 2)
    devices.park("a1", idle("big"), seconds=LONG)
    assert devices.take("a2", 1, key="small") is not None
    assert devices.take("a3", 1, key="small") is not None


def test_an_engine_that_died_while_it_was_idle_is_given_to_nobody(idle: Idle) -> None:
    devices = Devices(1)
    devices.take("a1", 1)
    engine = idle("mmlu")
    devices.park("a1", engine, seconds=LONG)
    engine.child.kill()
    taken = devices.take("a2", 1, key="mmlu")
    assert taken is not None
    assert taken.engine is None


@pytest.mark.parametrize("cause", ["time", "withheld", "others", "all"])
def test_an_idle_engine_ends_when_its_time_is_over_or_its_device_is_wanted(idle: Idle, cause: str) -> None:
    devices = Devices(1)
    devices.take("a1", 1)
    engine = idle()
    devices.started("a1", engine.child.pid, "commit")
    devices.park("a1", engine, seconds=0.01 if cause == "time" else LONG)
    match cause:
        case "withheld":
            devices.withhold(0, "others")
        case "others":
            devices.end_idle([0])
        case "all":
            devices.close()
    wait_until(lambda: not devices.groups(), "nothing of us is on the device")
    assert not engine.child.alive()
    assert devices.warm() == ()


def test_an_engine_is_not_kept_on_a_device_that_was_withheld_meanwhile(idle: Idle) -> None:
    devices = Devices(1)
    devices.take("a1", 1)
    devices.withhold(0, "others")
    engine = idle()
    devices.park("a1", engine, seconds=LONG)
    assert not engine.child.alive()


def test_many_threads_never_share_a_device() -> None:
    devices = Devices(4)
    held: list[int] = []
    shared: list[int] = []
    lock = threading.Lock()

    def use(attempt: str) -> None:
        for number in range(300):
            taken = devices.take(f"{attempt}-{number}", 1 + number % 3)
            if taken is None:
                continue
            with lock:
                shared.extend(set(held) & set(taken.indices))
                held.extend(taken.indices)
            with lock:
                for index in taken.indices:
                    held.remove(index)
            devices.free(f"{attempt}-{number}")

    threads = [threading.Thread(target=use, args=(f"t{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shared == []
    assert devices.take("last", 4) is not None


@pytest.mark.parametrize(
    ("variable", "seen"),
    [(None, ("0", "1")), ("", ("0", "1")), ("3,5", ("3", "5")), ("GPU-aa, MIG-bb", ("GPU-aa", "MIG-bb"))],
)
def test_a_device_goes_by_the_name_that_the_worker_was_given_for_it(
    variable: str | None, seen: tuple[str, ...]
) -> None:
    devices = Devices(2, names=names_of(GPUS, variable))
    assert devices.names == seen
    assert devices.environment([1, 0]) == {
        "CUDA_VISIBLE_DEVICES": f"{seen[1]},{seen[0]}",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    assert Devices(2).environment([0]) == {}
    assert names_of(GPUS.model_copy(update={"device_type": "cpu"}), variable) == ()


def test_works_share_an_engine_key_only_when_the_same_engine_would_be_started_for_them() -> None:
    work = infer_work({})
    assert engine_key(work, 1) == engine_key(work.model_copy(update={"sheets": {"B": "b"}, "attempt": "other"}), 1)
    others = [
        engine_key(work, 2),
        engine_key(work.model_copy(update={"settings": {"batch": 3}}), 1),
        engine_key(work.model_copy(update={"identity": work.identity | {"dtype": "float16"}}), 1),
    ]
    assert engine_key(work, 1) not in others
    assert len(set(others)) == 3


def test_the_devices_of_a_process_that_does_not_end_are_nobodys_until_it_does(idle: Idle) -> None:
    process, devices, gone = idle().child, Devices(2), threading.Event()
    assert devices.take("a1", 1) is not None
    process._burial = threading.Thread(target=gone.wait, daemon=True)
    process._burial.start()
    devices.free_when_gone("a1", process)
    assert (devices.usable(), devices.take("a2", 2)) == (1, None)
    assert "does not end" in devices.withheld()[0]
    gone.set()
    wait_until(lambda: devices.usable() == 2, seconds=10, what="the device to be free")
    assert devices.take("a2", 2) is not None
