"""A rolling upgrade: workers of the release before and of the one after speak with this hub, through a real broker."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from orchestrator import broker, tasks
from orchestrator.inbox import Inbox
from orchestrator.wire import Order, Stage
from tests.orchestrator.yard import LEASE, Yard, done_of
from tests.services import valkey


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    with valkey(tmp_path / "valkey") as server:
        yield broker.make_app(server.url, name="test")


class OlderWorkers:
    """Say what the first release said, and no more."""

    def heartbeat(self, yard: Yard, worker: str, running: dict[str, Any]) -> dict[str, Any]:
        kind = worker.partition("-")[0]
        engine = {"family": "scripted", "version": "1", "device_type": "cpu", "device": "a CPU"}
        said = {"version": 1, "worker": worker, "boot": "b", "kind": kind, "at": yard.now.isoformat(), "slots": 4}
        return said | {"running": running} | ({"engine": engine} if kind == "engine" else {})

    def progress(self) -> dict[str, Any]:
        return {"phase": "working", "done": 1, "total": 16, "benchmarks_done": []}

    def update(self, yard: Yard, worker: str, attempt: str, event: str, done: Any = None) -> dict[str, Any]:
        said = {"version": 1, "attempt": attempt, "worker": worker, "at": yard.now.isoformat(), "event": event}
        return said | ({"done": done} if done else {})

    def done(self, order: Order) -> dict[str, Any]:
        """Without what was added since."""
        kept = {
            Stage.PREPARE: ("stage", "sheet", "digest", "requests", "documents", "truncated", "identity", "provenance"),
            Stage.INFER: (
                "stage", "computed", "reused", "seconds", "total_seconds", "tokens_computed", "tokens_reused", "engine",
            ),
            Stage.SCORE: ("stage", "results", "scores", "provenance"),
        }[order.work.stage]  # fmt: skip
        return {name: value for name, value in done_of(order).items() if name in kept}


class NewerWorkers(OlderWorkers):
    """Say all that this release says, and more: everywhere a field that it does not know, and events of a new kind."""

    def heartbeat(self, yard: Yard, worker: str, running: dict[str, Any]) -> dict[str, Any]:
        said = super().heartbeat(yard, worker, running)
        return _with_more(said | {"moods": ["calm"], "gpus": [_with_more(GPU)] if "engine" in said else []})

    def progress(self) -> dict[str, Any]:
        return _with_more(super().progress() | {"spent": _with_more({"requests": 3})})

    def update(self, yard: Yard, worker: str, attempt: str, event: str, done: Any = None) -> dict[str, Any]:
        return _with_more(super().update(yard, worker, attempt, event, done) | {"progress": self.progress()})

    def done(self, order: Order) -> dict[str, Any]:
        done = done_of(order)
        return _with_more({name: _with_more(value) if name == "engine" else value for name, value in done.items()})


GPU = {"index": 0, "uuid": "GPU-a", "state": "idle", "sentence": "idle"}


def _with_more(said: dict[str, Any]) -> dict[str, Any]:
    return said | {"added_later": {"by": "a newer release"}}


@pytest.mark.parametrize("workers", [OlderWorkers(), NewerWorkers()], ids=["older", "newer"])
def test_an_evaluation_ends_well_with_workers_of_a_neighbouring_release(
    yard: Yard, app: Celery, workers: OlderWorkers
) -> None:
    hub = tasks.Hub(app=app, engine=yard.engine, suites=yard.suites, lease=LEASE)
    inbox = Inbox(app, lambda letters: tasks.take(hub, letters), stopping=threading.Event())

    def say(task: str, message: dict[str, Any]) -> None:
        app.send_task(task, args=[message], queue=broker.CONTROL_QUEUE)

    def beat(running: dict[str, dict[str, Any]]) -> None:
        for worker in ("harness-1", "engine-1"):
            say(broker.HEARTBEAT_TASK, workers.heartbeat(yard, worker, running.get(worker, {})))

    def hear() -> None:
        while inbox.read_once(wait=1):
            if not broker.waiting_messages(app, broker.CONTROL_QUEUE):
                return

    yard.now = datetime.now(UTC)  # the hub's own clock decides about messages
    evaluation = yard.submit()
    for _ in range(3):
        beat({})
        hear()
        before = len(yard.sent)
        yard.tick()
        given = yard.sent[before:]
        assert given
        running: dict[str, dict[str, Any]] = {}
        for worker, order in given:
            running.setdefault(worker, {})[order.attempt] = workers.progress()
            say(broker.UPDATE_TASK, workers.update(yard, worker, order.attempt, "started"))
            # Of a kind that only a newer release has: refused with a sentence, and nothing else is lost by it.
            say(broker.UPDATE_TASK, workers.update(yard, worker, order.attempt, "dreaming"))
            say("evalyard.farewell", {"version": 1, "attempt": order.attempt})
        beat(running)
        for worker, order in given:
            say(broker.UPDATE_TASK, workers.update(yard, worker, order.attempt, "completed", workers.done(order)))
        hear()
    assert yard.evaluation(evaluation).state.value == "finished"
    assert set(yard.states(evaluation).values()) == {"completed"}
    assert all(len(yard.attempts(yard.job(evaluation, stage))) == 1 for stage in (Stage.INFER,))
