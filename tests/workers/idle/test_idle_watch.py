"""What a worker does about the verdicts: with real devices, a file of fake GPUs, and real processes on them."""

import json
import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.wire import Mode
from tests.services import wait_until
from tests.workers.bench import Bench, slow
from workers.devices import Devices
from workers.idle.gpus import FakeGpus, GpusUnreadable, Reading
from workers.idle.idle_watch import IdleWatch
from workers.idle.idleness import BLIND_SECONDS, GpuPolicy
from workers.idle.windows import ALWAYS, Windows, read_windows

GB = 10**9


@dataclass
class Process:
    """A process in a group of its own, which stands for a program on a GPU."""

    popen: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.popen.pid

    def on(self, gigabytes: float) -> dict[str, Any]:
        return {
            "memory_used": int(gigabytes * GB),
            "utilisation": 90.0,
            "processes": [{"pid": self.pid, "memory_bytes": int(gigabytes * GB)}],
        }

    def end(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait()


@dataclass
class Yard:
    """A watch whose clocks, GPUs and operator are the test's."""

    folder: Path
    gpu_count: int = 2
    windows: Windows = ALWAYS
    policy: GpuPolicy = field(default_factory=GpuPolicy)
    now: float = 1000.0
    wall: datetime = datetime(2026, 11, 23, 12, tzinfo=UTC)
    wanted: Mode | None = None
    preempted: list[tuple[tuple[int, ...], str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.devices = Devices(self.gpu_count or 1)
        self.watch = IdleWatch(
            self.devices,
            preempt=lambda indices, sentence: self.preempted.append((tuple(indices), sentence)),
            look=lambda: self.wanted,
            gpus=FakeGpus(self.folder / "gpus.json") if self.gpu_count else None,
            policy=self.policy,
            windows=self.windows,
            now=lambda: self.now,
            wall=lambda: self.wall,
        )
        self.gpus(*({} for _ in range(self.gpu_count)))

    def gpus(self, *gpus: dict[str, Any]) -> None:
        (self.folder / "gpus.json").write_text(json.dumps(gpus))

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds // 10)):
            self.now += 10
            self.watch.step()

    def look(self) -> list[str]:
        self.now += 2
        self.watch.step()
        return [gpu.state.value for gpu in self.watch.standing.gpus]

    def compute(self, attempt: str, process: Process) -> int:
        """Let an attempt of ours run there; returns its device."""
        taken = self.devices.take(attempt, 1)
        assert taken is not None
        self.devices.started(attempt, process.pid, "commit")
        return taken.indices[0]


@pytest.fixture
def processes() -> Iterator[Any]:
    started: list[Process] = []

    def start() -> Process:
        started.append(Process(subprocess.Popen(["sleep", "1000"], start_new_session=True)))
        return started[-1]

    yield start
    for process in started:
        if process.popen.poll() is None:
            process.end()


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    """Two GPUs that are idle for long."""
    made = Yard(tmp_path)
    made.pass_time(310)
    assert made.devices.usable() == 2
    return made


def test_nothing_is_usable_before_it_was_idle_for_long_enough(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    assert yard.devices.usable() == 0
    assert yard.look() == ["waiting", "waiting"]
    assert (yard.devices.usable(), yard.watch.standing.sentence) == (0, "none of its 2 GPUs may be used now")
    yard.pass_time(310)
    assert (yard.devices.usable(), yard.watch.standing.sentence) == (2, "")


def test_a_foreign_process_on_our_gpu_ends_what_runs_there_once_and_nothing_else(yard: Yard, processes: Any) -> None:
    ours, other = processes(), processes()
    device = yard.compute("a1", ours)
    there = [{}, {}]
    there[device] = ours.on(70)
    yard.gpus(*there)
    assert yard.look()[device] == "ours"
    assert (yard.preempted, yard.devices.usable()) == ([], 2)

    both = ours.on(70)
    both["processes"] += other.on(1)["processes"]
    there[device] = both
    yard.gpus(*there)
    assert yard.look()[device] == "busy"
    sentence = f"busy: another process {other.pid} holds 1 GB"
    assert (yard.preempted, yard.devices.usable()) == ([((device,), sentence)], 1)
    assert yard.look()[device] == "leaving"
    assert len(yard.preempted) == 1, "it is told once"

    ours.end()
    yard.devices.free("a1")
    there[device] = other.on(1)
    yard.gpus(*there)
    assert yard.look()[device] == "busy"
    other.end()
    there[device] = {}
    yard.gpus(*there)
    assert yard.look()[device] == "waiting"


def test_an_attempt_that_only_downloads_yet_is_given_back_as_well(yard: Yard, processes: Any) -> None:
    taken = yard.devices.take("a1", 1)
    assert taken is not None
    there = [{}, {}]
    there[taken.indices[0]] = processes().on(3)
    yard.gpus(*there)
    yard.look()
    assert [indices for indices, _ in yard.preempted] == [taken.indices]


def test_a_gpu_that_does_not_come_free_in_time_is_said_loudly_and_is_not_used(
    yard: Yard, processes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ours = processes()
    device = yard.compute("a1", ours)
    yard.gpus(ours.on(70), ours.on(70))
    yard.wanted = Mode.PAUSED
    yard.look()
    yard.devices.free("a1")
    for _ in range(12):
        states = yard.look()
    assert states[device] == "leaving"
    gpu = yard.watch.standing.gpus[device]
    assert gpu.sentence == f"given back 24 s ago: 70 GB still in use by Evalyard's process {ours.pid}"
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        f"GPU {device} is not free 22 s after it was given back"
    ]
    yard.wanted = Mode.OPEN
    assert yard.look()[device] == "leaving"
    assert device in yard.devices.withheld()
    ours.end()
    yard.gpus({}, {})
    assert yard.look()[device] == "idle"
    assert f"GPU {device} was seen free 28.0 s after it was given back" in caplog.messages


def test_a_paused_worker_gives_back_what_it_runs_and_a_drained_one_lets_it_end(yard: Yard, processes: Any) -> None:
    ours = processes()
    device = yard.compute("a1", ours)
    there = [{}, {}]
    there[device] = ours.on(70)
    yard.gpus(*there)
    yard.look()
    yard.wanted = Mode.DRAINED
    assert sorted(yard.look()) == ["closed", "ours"]
    assert (yard.preempted, yard.devices.usable()) == ([], 0)
    assert (yard.watch.standing.mode, yard.watch.standing.sentence) == (Mode.DRAINED, "drained by an operator")
    yard.wanted = Mode.PAUSED
    assert yard.look() == ["closed", "closed"]
    assert yard.preempted == [((device,), "paused by an operator")]


def test_an_operators_word_holds_until_there_is_another(yard: Yard) -> None:
    yard.wanted = Mode.PAUSED
    yard.look()
    yard.wanted = None
    assert yard.look() == ["closed", "closed"]
    assert yard.watch.standing.mode is Mode.PAUSED
    yard.wanted = Mode.OPEN
    assert yard.look() == ["waiting", "waiting"]
    yard.pass_time(310)
    assert yard.look() == ["idle", "idle"]


class Driver(FakeGpus):
    """Fake GPUs that know whether they are held open."""

    is_open = False

    def read(self) -> list[Reading]:
        self.is_open = True
        return super().read()

    def close(self) -> None:
        self.is_open = False


def test_a_paused_worker_lets_go_of_the_driver_once_its_own_work_has_left(yard: Yard, processes: Any) -> None:
    driver = yard.watch._gpus = Driver(yard.folder / "gpus.json")
    ours = processes()
    device = yard.compute("a1", ours)
    there = [{}, {}]
    there[device] = ours.on(70)
    yard.gpus(*there)
    yard.wanted = Mode.PAUSED
    yard.look()
    assert driver.is_open
    ours.end()
    yard.devices.free("a1")
    yard.gpus({}, {})
    yard.look()
    assert yard.look() == ["closed", "closed"]
    assert (driver.is_open, yard.devices.usable()) == (False, 0)
    assert {gpu.sentence for gpu in yard.watch.standing.gpus} == {"paused by an operator"}


def test_a_gpu_on_which_somebody_killed_our_work_is_used_again_only_after_it_was_idle_for_long(
    yard: Yard, processes: Any
) -> None:
    ours = processes()
    device = yard.compute("a1", ours)
    ours.end()
    yard.devices.note_killed("a1")
    yard.devices.free("a1")
    assert yard.devices.usable() == 1
    states = yard.look()
    assert (states[device], states[1 - device]) == ("waiting", "idle")
    assert yard.devices.usable() == 1
    yard.pass_time(310)
    assert yard.look() == ["idle", "idle"]


def test_engines_are_told_gpus_by_the_names_that_stay_theirs(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    yard.devices.name(0, "0")
    yard.devices.name(1, "1")
    yard.look()
    assert yard.devices.environment((1,))["CUDA_VISIBLE_DEVICES"].endswith("-1")


def test_the_end_of_a_window_gives_everything_back_and_is_told_ahead(tmp_path: Path, processes: Any) -> None:
    yard = Yard(tmp_path, windows=read_windows("Mon-Fri 20:00-07:00", UTC))
    yard.wall = datetime(2026, 11, 24, 6, 59, 50, tzinfo=UTC)
    yard.pass_time(310)
    ours = processes()
    device = yard.compute("a1", ours)
    yard.look()
    assert yard.watch.standing.until == datetime(2026, 11, 24, 7, tzinfo=UTC)
    yard.wall += timedelta(seconds=10)
    sentence = "outside the window Mon-Fri 20:00-07:00; opens Tue 20:00"
    assert yard.look() == ["closed", "closed"]
    assert yard.preempted == [((device,), sentence)]
    assert (yard.watch.standing.sentence, yard.watch.standing.until) == (sentence, None)


def test_on_a_cpu_windows_and_operators_are_obeyed_too(tmp_path: Path) -> None:
    yard = Yard(tmp_path, gpu_count=0, windows=read_windows("20:00-07:00", UTC))
    yard.look()
    assert (yard.devices.usable(), yard.watch.standing.gpus) == (0, ())
    assert yard.preempted == [], "nothing runs"
    yard.wall += timedelta(hours=8)
    yard.look()
    assert yard.devices.usable() == 1
    assert yard.devices.take("a1", 1) is not None
    yard.wall += timedelta(hours=12)
    yard.look()
    yard.look()
    assert yard.preempted == [((0,), "outside the window 20:00-07:00; opens Tue 20:00")], "it is told once"
    yard.devices.free("a1")
    yard.wall += timedelta(hours=12)
    yard.look()
    assert yard.devices.usable() == 1
    yard.wanted = Mode.DRAINED
    yard.look()
    assert yard.devices.usable() == 0


def test_gpus_that_cannot_be_read_are_not_used_and_say_why(yard: Yard) -> None:
    yard.gpus({"fault": "the GPU fell off the bus"})
    assert yard.look() == ["unknown", "unknown"]
    assert [gpu.sentence for gpu in yard.watch.standing.gpus] == [
        "not known to be idle: the GPU fell off the bus",
        "not known to be idle: the driver lists fewer GPUs than the worker has",
    ]
    (yard.folder / "gpus.json").unlink()
    assert yard.look() == ["unknown", "unknown"]
    assert yard.devices.usable() == 0


def test_a_watch_that_fails_withholds_everything_and_soon_gives_it_back(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def read(self) -> list[Any]:
            raise RuntimeError("a fault of our own")

    assert yard.devices.take("a1", 2) is not None
    yard.watch._gpus = Broken()
    yard.watch.safe_step()
    assert (yard.devices.usable(), yard.preempted) == (0, [])
    assert "its log says why" in yard.watch.standing.sentence
    yard.now += BLIND_SECONDS + 1
    yard.watch.safe_step()
    assert [indices for indices, _ in yard.preempted] == [(0, 1)]


def test_a_broken_file_of_fakes_is_no_reading(tmp_path: Path) -> None:
    (tmp_path / "gpus.json").write_text("[")
    with pytest.raises(GpusUnreadable):
        FakeGpus(tmp_path / "gpus.json").read()


def test_a_worker_without_devices_gives_back_every_attempt_when_it_is_paused(bench: Bench) -> None:
    watch = IdleWatch(None, preempt=bench.supervisor.preempt, look=lambda: Mode.PAUSED)
    running = bench.start(bench.order("a1", settings=slow(0.2)))
    wait_until(lambda: bench.answered(), "some responses are sealed")
    watch.step()
    running.join()
    (update,) = bench.hub.updates[1:]
    assert (update.event, update.preempted, update.sentence) == ("released", True, "paused by an operator")
    assert watch.standing.sentence == "paused by an operator"
