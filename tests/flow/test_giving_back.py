"""A worker with a real vLLM engine, told to leave at random moments: gone in time, and what is sealed is kept."""

import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator import broker, wire
from orchestrator.artifacts import ArtifactStore, model_folder_digest
from orchestrator.wire import EngineFamily, Heartbeat, InferDone, InferWork, Model, Order, Precision, identity_digest
from tests.services import Valkey, processes_with, valkey, wait_until
from tests.tiny import build_tiny_model
from workers import segments, sheets

pytestmark = [pytest.mark.vllm, pytest.mark.flow, pytest.mark.timeout(3600)]

GRACE_SECONDS = 20.0
REQUESTS, CONTEXT = 24_000, 48
SEED = 11
MOMENTS = ("starting", "loading weights", "loading weights", "answering", "answering", "warm")
"""Where signals are aimed, one after the other: into the start of the program, the load and warm-up, the midst of
batches, and an idle engine that waits for its next work."""


@dataclass
class Host:
    """One worker process after the other, a broker that the test reads as the hub would, and an artifact store."""

    folder: Path
    server: Valkey
    model: Model
    phase: str = ""
    warm: tuple[str, ...] = ()
    updates: list[wire.Update] = field(default_factory=list)
    worker: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.store = ArtifactStore((self.folder / "store").as_uri())
        self.app = broker.make_app(self.server.url, name="test")
        self.identity = {"weights": self.model.revision, "engine": "vllm", "device_type": "cpu"}
        self._over = threading.Event()
        self._ear = threading.Thread(target=self._listen, daemon=True)
        self._ear.start()

    def start(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("EVALYARD_")}
        with (self.folder / "worker.log").open("ab") as log:
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "workers.app", "engine", "--name", "gpu-1"],
                env=kept
                | {
                    "EVALYARD_BROKER_URL": self.server.url,
                    "EVALYARD_ARTIFACTS_URL": self.store.url,
                    "EVALYARD_ENGINE": "vllm",
                    "EVALYARD_WORKER_SCRATCH": str(self.folder / "scratch"),
                    "EVALYARD_WORKER_WEIGHTS": str(self.folder / "weights"),
                    "EVALYARD_WORKER_HEARTBEAT_SECONDS": "0.5",
                    "EVALYARD_WORKER_GRACE_SECONDS": str(GRACE_SECONDS),
                    "PYTHONPATH": str(Path(__file__).parents[2]),
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def order(self, attempt: str, sheet: str) -> None:
        self.phase, self.warm = "", ()
        work = InferWork(
            model=self.model,
            identity=self.identity,
            engine=EngineFamily.VLLM,
            sheets={"ARC": f"sheets/1/{sheet}/p"},
            seal_seconds=1.0,
        )
        output = f"responses/{identity_digest(self.identity)}/{attempt}"
        order = Order(attempt=attempt, job=1, evaluation=1, work=work, lease_seconds=600.0, output=output)
        broker.send_order(self.app, "gpu-1", order)

    def add_sheet(self, name: str, requests: list[sheets.Loglikelihood]) -> None:
        folder = self.folder / name
        folder.mkdir()
        sheets.write_lines(folder / "requests.jsonl.zst", requests)
        sheets.write_lines(folder / "instances.jsonl.zst", [])
        longest = max(request.length for request in requests)
        sheets.write_info(folder, sheets.SheetInfo(name, "vllm", len(requests), 0, 0, 0, longest, {}, {}, {}))
        self.store.put_folder(f"sheets/1/{name}/p", folder)

    def answered(self) -> Counter[str]:
        """How often each request is answered in the store."""
        keys = self.store.list(f"responses/{identity_digest(self.identity)}")
        paths = [self.store.fetch_file(key, self.folder / "read") for key in keys]
        return Counter(response.id for path in paths for response in segments.read(path)[1])

    def terminate(self) -> float:
        """Send SIGTERM to the worker; how many seconds later no process of it or its engine is left."""
        assert self.worker is not None
        began = time.monotonic()
        self.worker.terminate()
        wait_until(lambda: not processes_with(str(self.folder / "scratch")), "all is gone", seconds=GRACE_SECONDS * 3)
        gone = time.monotonic() - began
        assert self.worker.wait(60) == 0
        return gone

    def ended(self, attempt: str) -> wire.Update | None:
        return next((one for one in self.updates if one.attempt == attempt and one.event != "started"), None)

    def wait_for(self, attempt: str, moment: str) -> None:
        """Until the attempt is at that moment, or past it."""
        phases = list(dict.fromkeys(MOMENTS))
        later = phases[phases.index(moment) :]

        def reached() -> bool:
            if moment == "warm":
                return bool(self.warm)
            update = self.ended(attempt)
            assert update is None, f"{update}\n{(self.folder / 'worker.log').read_text()[-3000:]}"
            return self.phase in later

        wait_until(reached, f"it is {moment}", seconds=600)

    def close(self) -> None:
        if self.worker is not None and self.worker.poll() is None:
            self.terminate()
        self._over.set()
        self._ear.join(10)

    def _listen(self) -> None:
        with self.app.connection_for_read() as connection:
            queue = connection.SimpleQueue(broker.CONTROL_QUEUE)
            while not self._over.is_set():
                try:
                    message = queue.get(timeout=0.5)
                except queue.Empty:
                    continue
                message.ack()
                told = message.payload[0][0]
                if message.headers["task"] == broker.UPDATE_TASK:
                    self.updates.append(wire.Update.model_validate(told))
                    continue
                heartbeat = Heartbeat.model_validate(told)
                self.warm = heartbeat.warm if not heartbeat.running else ()
                for progress in heartbeat.running.values():
                    self.phase = progress.phase


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    folder = build_tiny_model(tmp_path / "model", layers=4, hidden=128)
    model = Model(name="tiny", revision=model_folder_digest(folder), folder=str(folder), precision=Precision.FLOAT32)
    with valkey(tmp_path / "valkey") as server:
        made = Host(tmp_path, server, model)
        try:
            yield made
        finally:
            made.close()


def requests(count: int, draw: random.Random, *, first: int = 0) -> list[sheets.Loglikelihood]:
    """As many contexts, none of which shares its beginning with another."""
    found = []
    for number in range(first, first + count):
        context = [10 + number % 500, 10 + number // 500, *(draw.randrange(10, 500) for _ in range(CONTEXT))]
        answer = [draw.randrange(10, 500), draw.randrange(10, 500)]
        found.append(sheets.Loglikelihood(sheets.loglikelihood_id(context, answer), context, answer))
    return found


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_an_engine_is_gone_within_the_grace_whenever_it_is_told_to_leave(host: Host, rounds: int) -> None:
    draw = random.Random(SEED)
    asked = requests(REQUESTS, draw)
    host.add_sheet("large", asked)
    took: list[tuple[str, float]] = []
    kept: Counter[str] = Counter()
    for number in range(rounds):
        moment = MOMENTS[(number * 2 + 1) % len(MOMENTS) if rounds < len(MOMENTS) else number % len(MOMENTS)]
        host.start()
        sheet = "large"
        if moment == "warm":
            sheet = f"small-{number}"  # its requests are asked for the first time: else no engine starts
            host.add_sheet(sheet, requests(50, draw, first=REQUESTS + 50 * number))
        host.order(f"a{number}", sheet)
        host.wait_for(f"a{number}", moment)
        pause = threading.Event()
        pause.wait(draw.random() * {"starting": 2, "loading weights": 12, "answering": 4, "warm": 2}[moment])
        seen = "warm" if host.warm else host.phase
        took.append((seen, host.terminate()))
        print(f"told to leave while {seen}: gone after {took[-1][1]:.1f} s", flush=True)
        now = host.answered()
        assert now >= kept, "nothing that was sealed is lost"
        kept = now
        if moment != "warm":
            wait_until(lambda number=number: host.ended(f"a{number}"), "it said how it ended")
            update = host.ended(f"a{number}")
            assert update is not None
            assert (update.event, update.preempted) == ("released", True), update.sentence
    times = [seconds for _, seconds in took]
    print(f"{rounds} times: largest {max(times):.1f} s, median {statistics.median(times):.1f} s; {len(kept)} kept")
    assert max(times) <= GRACE_SECONDS
    assert set(kept.values()) <= {1}, "no response was computed twice"

    small = {request.id for request in asked[:3000]}
    host.add_sheet("rest", asked[:3000])
    host.start()
    host.order("last", "rest")
    wait_until(lambda: host.ended("last"), "the rest is answered", seconds=900)
    update = host.ended("last")
    assert update is not None
    assert isinstance(update.done, InferDone), update.sentence
    assert update.done.reused == len(small & set(kept))
    assert update.done.computed == len(small - set(kept))
    host.terminate()
