"""The control process for real: own process, real Valkey, real database; the test is the worker."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from psycopg.errors import AdminShutdown, DeadlockDetected
from sqlalchemy.exc import OperationalError

from orchestrator import broker, db, notes
from orchestrator.control import make_ticker
from orchestrator.settings import HubSettings
from orchestrator.wire import FailureKind, Heartbeat, Order, Progress, Update
from tests.orchestrator.yard import ENGINE, LEASE, Yard, done_of
from tests.postgres import Server
from tests.services import Valkey, valkey, wait_until

pytestmark = pytest.mark.flow

ROOT = Path(__file__).parents[2]


SMALL = """
name = "small"
version = "1"
title = "Small"
harness = "lm_eval 0.4.13"

[[benchmarks]]
name = "ARC"
tasks = ["arc"]
parts = [{ task = "arc", metric = "acc", baseline = 0.25 }]

[[benchmarks]]
name = "MMLU"
tasks = ["mmlu"]
parts = [{ task = "mmlu", metric = "acc", baseline = 0.25 }]
"""
"""The suite of `tests.orchestrator.yard`, as the control process reads it."""


@dataclass
class Control:
    """The control process, and the worker's end of the broker."""

    server: Valkey
    database_url: str
    folder: Path
    app: Celery
    process: subprocess.Popen[bytes] | None = None
    orders: list[Order] = field(default_factory=list)

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EVALYARD_")}
        (self.folder / "suites").mkdir(exist_ok=True)
        (self.folder / "suites" / "small.toml").write_text(SMALL)
        environment |= {
            "EVALYARD_DATA": str(self.folder),
            "EVALYARD_SUITES": str(self.folder / "suites"),
            "EVALYARD_DATABASE_URL": self.database_url,
            "EVALYARD_BROKER_URL": self.server.url,
            "EVALYARD_LEASE_SECONDS": "6",
            "EVALYARD_TICK_SECONDS": "0.2",
            "PYTHONPATH": str(ROOT),
        }
        with (self.folder / "control.log").open("ab") as log:
            command = [sys.executable, "-m", "orchestrator.control"]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self.folder)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def beat(self, *running: str) -> None:
        for name, slots in (("engine-1", 1), ("harness-1", 8)):
            engine = name == "engine-1"
            heartbeat = Heartbeat(
                worker=name,
                boot="first",
                kind="engine" if engine else "harness",
                at=datetime.now(UTC),
                slots=slots,
                engine=ENGINE if engine else None,
                running={attempt: Progress() for attempt in running},
            )
            broker.send_heartbeat(self.app, heartbeat)

    def order(self, worker: str, *, beating: tuple[str, ...] = ()) -> Order:
        """The next order for a worker, which beats while it waits."""
        found: list[Order] = []

        def look() -> bool:
            with suppress(broker.BrokerLost):
                self.beat(*beating)
            with self.app.connection_for_read() as connection, suppress(Exception):
                queue = connection.SimpleQueue(broker.worker_queue(worker))
                message = queue.get(timeout=0.3)
                message.ack()
                found.append(broker.read(Order, message.payload[0][0]))
            return bool(found)

        wait_until(look, f"an order for {worker}", seconds=60)
        return found[0]

    def report(self, order: Order, event: str, **fields: Any) -> None:
        worker = "engine-1" if order.work.stage.needs_engine else "harness-1"
        update = Update.model_validate(
            {"attempt": order.attempt, "worker": worker, "at": datetime.now(UTC), "event": event, **fields}
        )
        broker.send_update(self.app, update)

    def complete(self, order: Order) -> None:
        self.report(order, "completed", done=done_of(order))


@pytest.fixture
def control(database_url: str, tmp_path: Path) -> Iterator[Control]:
    with valkey(tmp_path / "valkey") as server:
        made = Control(server, database_url, tmp_path, broker.make_app(server.url, name="test-worker"))
        made.start()
        try:
            yield made
        finally:
            made.kill()


@pytest.fixture
def yard(database_url: str) -> Iterator[Yard]:
    engine = db.make_engine(database_url)
    db.migrate(engine)
    yield Yard(engine, now=datetime.now(UTC))
    engine.dispose()


def test_orders_go_out_and_results_come_in_across_a_killed_control_process(control: Control, yard: Yard) -> None:
    evaluation = yard.submit()
    prepares = [control.order("harness-1") for _ in range(2)]
    control.kill()
    for order in prepares:
        control.complete(order)
    control.start()
    infer = control.order("engine-1")
    control.complete(infer)
    for _ in prepares:
        score = control.order("harness-1")
        control.complete(score)
        control.complete(score)
    wait_until(lambda: yard.evaluation(evaluation).state.value == "finished", "the evaluation is finished")
    assert yard.evaluation(evaluation).average == pytest.approx(100 / 3)
    assert len(yard.scores(evaluation)) == 2 * 3


def test_a_worker_that_falls_silent_loses_its_job_to_the_next_attempt(control: Control, yard: Yard) -> None:
    yard.submit()
    first = control.order("harness-1")
    orders = [first]
    while (order := control.order("harness-1")).job != first.job:
        orders.append(order)
    assert order.attempt != first.attempt
    control.beat(first.attempt)
    wait_until(lambda: notes.stop_requested(control.app, first.attempt), "the silent worker is asked to stop")


def test_garbage_does_not_stop_the_control_process(control: Control, yard: Yard) -> None:
    for payload in (None, {"version": 99}, "x" * 1000):
        for task in (broker.UPDATE_TASK, broker.HEARTBEAT_TASK):
            control.app.send_task(task, args=[payload], queue=broker.CONTROL_QUEUE)
    yard.submit()
    control.order("harness-1")
    assert control.process is not None
    assert control.process.poll() is None


def test_the_control_process_survives_a_broker_that_was_killed(control: Control, yard: Yard) -> None:
    control.beat()
    control.server.kill()
    yard.submit()
    control.server.start()
    control.order("harness-1")


def test_sigterm_ends_the_control_process_in_good_order(control: Control, yard: Yard) -> None:
    yard.submit()
    control.order("harness-1")
    assert control.process is not None
    control.process.send_signal(signal.SIGTERM)
    assert control.process.wait(timeout=20) == 0


def test_the_control_process_survives_a_database_that_was_restarted(
    postgres_server: Server, postgres_url: str, tmp_path: Path
) -> None:
    engine = db.make_engine(postgres_url)
    db.migrate(engine)
    yard = Yard(engine, now=datetime.now(UTC))
    with valkey(tmp_path / "valkey") as server:
        control = Control(server, postgres_url, tmp_path, broker.make_app(server.url, name="test-worker"))
        control.start()
        try:
            yard.submit()
            order = control.order("harness-1")
            postgres_server.stop()
            control.complete(order)
            postgres_server.start()

            def completed() -> bool:
                try:
                    return "completed" in yard.states(1).values()
                except OperationalError:
                    return False

            wait_until(completed, "the update that came while the database was away is applied", seconds=60)
        finally:
            control.kill()


def test_a_control_process_that_reads_no_messages_any_more_ends_so_that_it_is_started_again(
    tmp_path: Path,
) -> None:
    with valkey(tmp_path / "valkey") as server:
        settings = HubSettings(data=tmp_path, broker_url=server.url)
        start = datetime(2026, 1, 1, tzinfo=UTC)
        ticker = make_ticker(settings, now=start)
        ended: list[str] = []
        ticker.die = lambda: ended.append("ended")
        ticker.tick(start + timedelta(seconds=61))
        assert ended == []  # nothing waits
        ticker.hub.app.send_task(broker.HEARTBEAT_TASK, args=[None], queue=broker.CONTROL_QUEUE)
        ticker.tick(start + timedelta(seconds=59))
        assert ended == []  # it has not waited long
        ticker.tick(start + timedelta(seconds=61))
        assert ended == ["ended"]


def test_time_that_passed_unseen_proves_nothing_about_leases(tmp_path: Path) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    ticker = make_ticker(HubSettings(data=tmp_path, broker_url="memory://"), now=start)
    lease = ticker.hub.lease
    for second in range(61):
        now = start + timedelta(seconds=second)
        ticker.notice_gap(now)
    assert ticker.listening.long_enough(now, lease)
    for jump in (timedelta(hours=1), -timedelta(hours=2)):  # suspended, or the clock was set
        now += jump
        ticker.notice_gap(now)
        assert not ticker.listening.long_enough(now, lease)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_hub_that_was_away_fails_no_job_for_the_only_worker_that_it_has_heard_yet(yard: Yard, tmp_path: Path) -> None:
    evaluation = yard.submit()
    order = yard.infer_order()
    yard.beat("engine-2", slots=0)  # it could hold it, and others have its GPU
    yard.fail(order, FailureKind.OUT_OF_MEMORY, "It does not fit.")
    settings = HubSettings(data=tmp_path, broker_url="memory://", database_url=str(yard.engine.url))
    yard.wait(3600)  # nobody listens
    ticker = make_ticker(settings, now=yard.now)
    ticker.dispatcher = yard.dispatcher()
    yard.beat("engine-1")
    ticker.tick(yard.now)
    assert yard.states(evaluation)["infer"] == "queued"
    yard.wait(LEASE.total_seconds())
    yard.beat("engine-1")
    ticker.tick(yard.now)
    assert yard.states(evaluation)["infer"] == "failed", "nobody else has come back"


@pytest.mark.parametrize(("error", "listens"), [(DeadlockDetected(), True), (AdminShutdown(), False)])
def test_a_transaction_that_was_undone_is_no_lost_database(tmp_path: Path, error: Exception, listens: bool) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    ticker = make_ticker(HubSettings(data=tmp_path, broker_url="memory://"), now=start)
    now = start + ticker.hub.lease * 2

    def undone(_: datetime) -> None:
        raise OperationalError("UPDATE", None, error)

    ticker.safely(undone, now)
    assert ticker.listening.long_enough(now, ticker.hub.lease) is listens


def test_settings_that_cannot_work_end_the_start_with_a_sentence(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "EVALYARD_DATA": str(tmp_path)}
    command = [sys.executable, "-m", "orchestrator.control"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "There is no broker. Start everything by `evalyard up`, or set EVALYARD_BROKER_URL.\n"
