"""The worker process itself, with a real broker: what it says of itself, and what it refuses."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from orchestrator import broker, wire
from orchestrator.wire import EngineFamily
from tests.services import Valkey, processes_with, valkey, wait_until
from workers import app
from workers.settings import WorkerSettings

pytestmark = pytest.mark.flow


def start_worker(folder: Path, server: Valkey) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EVALYARD_")}
    return subprocess.Popen(
        [sys.executable, "-m", "workers.app", "engine", "--name", "gpu-1"],
        env=kept
        | {
            "EVALYARD_BROKER_URL": server.url,
            "EVALYARD_ARTIFACTS_URL": (folder / "store").as_uri(),
            "EVALYARD_ENGINE": "scripted",
            "EVALYARD_WORKER_SCRATCH": str(folder / "scratch"),
            "EVALYARD_WORKER_WEIGHTS": str(folder / "weights"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


class Ear:
    """Reads what workers tell the hub."""

    def __init__(self, server: Valkey) -> None:
        self.app = broker.make_app(server.url, name="test")
        self._queue = self.app.connection_for_read().SimpleQueue(broker.CONTROL_QUEUE)

    def hear(self, task: str) -> dict[str, Any]:
        """The next message of this kind."""
        while True:
            message = self._queue.get(timeout=30)
            message.ack()
            if message.headers["task"] == task:
                return message.payload[0][0]


@pytest.fixture
def server(tmp_path: Path):
    with valkey(tmp_path / "valkey") as running:
        yield running


@pytest.mark.parametrize(
    ("device", "slots", "names"),
    [("cuda", None, ("3", "4", "5")), ("cuda", 2, ("3", "4")), ("cpu", None, None), ("cpu", 2, None)],
)
def test_an_engine_worker_gives_out_each_of_its_gpus_or_slots_on_a_cpu(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: Literal["cuda", "cpu"],
    slots: int | None,
    names: tuple[str, ...] | None,
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4,5")
    settings = WorkerSettings(
        broker_url="redis://localhost", artifacts_url=tmp_path.as_uri(), worker_kind="engine", worker_slots=slots
    )
    count = 3 if device == "cuda" else 1
    info = wire.EngineInfo(
        family=EngineFamily.VLLM, version="1", device_type=device, device="a device", device_count=count
    )
    devices = app.devices_of(settings, info)
    assert devices is not None
    assert (devices.names, devices.count) == (names or (), len(names or ()) or slots or 1)
    assert app.devices_of(settings, None) is None


def test_a_worker_says_what_it_is_gives_a_foreign_order_back_and_says_goodbye(tmp_path: Path, server: Valkey):
    worker = start_worker(tmp_path, server)
    ear = Ear(server)
    heartbeat = broker.read(wire.Heartbeat, ear.hear(broker.HEARTBEAT_TASK))
    assert (heartbeat.worker, heartbeat.kind, heartbeat.slots, heartbeat.running) == ("gpu-1", "engine", 1, {})
    assert heartbeat.engine is not None
    assert heartbeat.engine.family is wire.EngineFamily.SCRIPTED

    foreign = {"version": 99, "attempt": "a1", "something": "new"}
    ear.app.send_task(broker.ORDER_TASK, args=[foreign], queue=broker.worker_queue("gpu-1"))
    update = broker.read(wire.Update, ear.hear(broker.UPDATE_TASK))
    assert (update.attempt, update.event) == ("a1", "released")
    assert "version 99" in update.sentence

    second = start_worker(tmp_path, server)
    _, said = second.communicate(timeout=60)
    assert second.returncode == 1
    assert "A worker named gpu-1 runs on this host already" in said

    worker.send_signal(signal.SIGTERM)
    _, said = worker.communicate(timeout=30)
    assert worker.returncode == 0
    assert server.password not in said
    wait_until(lambda: ear.hear(broker.HEARTBEAT_TASK)["stopping"], "it says that it stops")
    assert not [command for command in processes_with(str(tmp_path)).values() if "valkey" not in command]
