"""Workers that answer orders without doing them, all in one process. Used by `benchmarks.dispatch`.

    EVALYARD_BROKER_URL=… python -m benchmarks.scripted_workers COUNT GAPS [--answer-seconds SECONDS]

Four in five prepare and score, four stages at a time; the others infer, one at a time. Celery reads every worker's own
queue. Without `--answer-seconds` an order is answered the moment it comes, and each worker beats every 5 s. With it an
answer takes between half and one and a half times as long, and workers say and beat what real ones do: `started`, and a
heartbeat for what has changed, 0.3 s after the last at the earliest. `GAPS` is a file: a line for each order, with how
long its slot had stood empty by the worker's own clock.
"""

import argparse
import heapq
import itertools
import os
import random
import threading
import uuid
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.backlog import Gap
from benchmarks.processes import consume
from orchestrator import broker
from orchestrator.wire import (
    EngineFamily,
    EngineInfo,
    Heartbeat,
    InferDone,
    Order,
    PrepareDone,
    Progress,
    ScoreDone,
    ScoreValue,
    Stage,
    Update,
)
from workers.heartbeat import LEAST_PAUSE

HARNESS_SLOTS = 4
BEAT_SECONDS = 5.0
INFO = EngineInfo(family=EngineFamily.SCRIPTED, version="1", device_type="cpu", device="scripted")


class Clock(threading.Thread):
    """Does things at their time, one after the other."""

    def __init__(self) -> None:
        super().__init__(name="clock", daemon=True)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()

    def at(self, when: float, do: Callable[[], None]) -> None:
        with self._changed:
            heapq.heappush(self._due, (when, next(self._numbers), do))
            self._changed.notify()

    def run(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > monotonic():
                    self._changed.wait(self._due[0][0] - monotonic() if self._due else None)
                _, _, do = heapq.heappop(self._due)
            do()


class ScriptedWorkers:
    """What they hold, and what they say of it."""

    def __init__(self, url: str, count: int, gaps: Path, *, answer_seconds: float) -> None:
        self.names = [f"harness-{number}" if number % 5 else f"engine-{number}" for number in range(count)]
        self._app = broker.make_app(url, name="benchmark.voice")
        self._boot = uuid.uuid4().hex
        self._seconds = answer_seconds
        self._draw = random.Random(1)  # noqa: S311  # nothing secret is drawn
        self._gaps = gaps.open("w", encoding="utf-8", buffering=1)
        self._clock = Clock()
        self._lock = threading.Lock()
        self._held: dict[str, set[str]] = defaultdict(set)
        self._freed: dict[str, deque[datetime]] = defaultdict(deque)
        self._beaten: dict[str, float] = {}
        self._is_due: set[str] = set()
        """Workers that will beat before their time, for something has changed."""

    def start(self) -> None:
        for name in self.names:
            self._beat_regularly(name)
        self._clock.start()

    def take(self, worker: str, order: Order) -> None:
        """An order has come to a free slot."""
        now = datetime.now(UTC)
        with self._lock:
            self._held[worker].add(order.attempt)
            since = self._freed[worker].popleft() if self._freed[worker] else None
            if since is not None:
                self._gaps.write("\t".join((worker, since.isoformat(), now.isoformat())) + "\n")
            pause = self._seconds * self._draw.uniform(0.5, 1.5)
        if not pause:
            self._answer(worker, order)
            return
        broker.send_update(self._app, Update(attempt=order.attempt, worker=worker, at=now, event="started"))
        self._tell(worker)
        self._clock.at(monotonic() + pause, lambda: self._answer(worker, order))

    def _answer(self, worker: str, order: Order) -> None:
        now = datetime.now(UTC)
        with self._lock:
            self._held[worker].discard(order.attempt)
            self._freed[worker].append(now)
        report = Update(attempt=order.attempt, worker=worker, at=now, event="completed", done=done_of(order))
        broker.send_update(self._app, report)
        if self._seconds:
            self._tell(worker)

    def _tell(self, worker: str) -> None:
        """Beat soon."""
        with self._lock:
            if worker in self._is_due:
                return
            self._is_due.add(worker)
            when = self._beaten[worker] + LEAST_PAUSE
        self._clock.at(when, lambda: self._beat(worker))

    def _beat_regularly(self, worker: str) -> None:
        last = self._beaten.get(worker)
        if last is None or monotonic() - last >= BEAT_SECONDS:
            self._beat(worker)
        self._clock.at(self._beaten[worker] + BEAT_SECONDS, lambda: self._beat_regularly(worker))

    def _beat(self, worker: str) -> None:
        with self._lock:
            self._is_due.discard(worker)
            self._beaten[worker] = monotonic()
            running = {attempt: Progress() for attempt in self._held[worker]} if self._seconds else {}
        harness = worker.startswith("harness")
        broker.send_heartbeat(
            self._app,
            Heartbeat(
                worker=worker,
                boot=self._boot,
                kind="harness" if harness else "engine",
                at=datetime.now(UTC),
                slots=HARNESS_SLOTS if harness else 1,
                engine=None if harness else INFO,
                running=running,
            ),
        )


def done_of(order: Order) -> PrepareDone | InferDone | ScoreDone:
    match order.work.stage:
        case Stage.PREPARE:
            identity = {"weights": order.work.model.revision}
            return PrepareDone(
                sheet=order.output, digest="d", requests=100, documents=25, truncated=0, longest=100,
                identity=identity, provenance={},
            )  # fmt: skip
        case Stage.INFER:
            return InferDone(
                computed=300, reused=0, seconds=1.0, total_seconds=2.0, tokens_computed=9000, tokens_reused=0,
                engine=INFO,
            )  # fmt: skip
        case Stage.SCORE:
            metric = "exact_match" if order.work.benchmark.name == "Sums" else "acc"
            value = ScoreValue(
                task=order.work.benchmark.tasks[0], metric=metric, filter="none", value=0.5, stderr=0.1, samples=25,
                higher_is_better=True,
            )  # fmt: skip
            return ScoreDone(results=order.output, scores=(value,), provenance={})


def read_gaps(path: Path) -> list[Gap]:
    """What the workers wrote down so far."""
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return [Gap(row[0], datetime.fromisoformat(row[1]), datetime.fromisoformat(row[2])) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int)
    parser.add_argument("gaps", type=Path)
    parser.add_argument("--answer-seconds", type=float, default=0.0)
    given = parser.parse_args()
    url = os.environ["EVALYARD_BROKER_URL"]
    workers = ScriptedWorkers(url, given.count, given.gaps, answer_seconds=given.answer_seconds)
    app = broker.make_app(url, name="benchmark.workers")

    @app.task(name=broker.ORDER_TASK, ignore_result=True, shared=False, bind=True)  # type: ignore[untyped-decorator]
    def answer(task: Any, payload: Any) -> None:
        worker = str(task.request.delivery_info["routing_key"]).removeprefix("worker.")
        workers.take(worker, broker.read(Order, payload))

    workers.start()
    consume(app, [broker.worker_queue(name) for name in workers.names])


if __name__ == "__main__":
    main()
