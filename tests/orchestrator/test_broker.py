from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from orchestrator import broker, notes
from orchestrator.wire import EngineFamily, Forecast, Heartbeat, InferWork, Model, Order, Precision, Update
from tests.services import Valkey, valkey

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ORDER = Order(
    attempt="a1",
    job=1,
    evaluation=1,
    work=InferWork(
        model=Model(name="org/model", revision="0" * 40, precision=Precision.FLOAT32),
        identity={},
        engine=EngineFamily.SCRIPTED,
        sheets={},
    ),
    lease_seconds=60,
    output="responses/x/a1",
)
LARGE = ORDER.model_copy(update={"output": "x" * 5000})
UPDATE = Update(attempt="a1", worker="w", at=NOW, event="started")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with valkey(tmp_path_factory.mktemp("valkey")) as running:
        yield running


@pytest.fixture
def app(server: Valkey):
    redis.Redis.from_url(server.url).flushall()
    return broker.make_app(server.url, name="test")


def test_an_order_waits_in_the_queue_of_its_worker_alone(app):
    broker.send_order(app, "gpu-1", ORDER)
    assert broker.waiting_messages(app, broker.worker_queue("gpu-1")) == 1
    assert broker.waiting_messages(app, broker.worker_queue("gpu-2")) == 0


def test_a_message_is_json_that_reads_back_as_it_was(app):
    broker.send_order(app, "gpu-1", ORDER)
    with app.connection_for_read() as connection:
        message = connection.SimpleQueue("worker.gpu-1").get(timeout=5)
    assert message.content_type == "application/json"
    assert message.headers["task"] == broker.ORDER_TASK
    assert broker.read(Order, message.payload[0][0]) == ORDER


def test_a_message_that_is_too_large_is_not_sent(app, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(broker, "MOST_BYTES", 5000)
    large = UPDATE.model_copy(update={"sentence": "x" * 5000})
    for send in (lambda: broker.send_update(app, large), lambda: broker.send_order(app, "gpu-1", LARGE)):
        with pytest.raises(broker.MessageTooLarge, match=r"has 0\.0 MB, and a message may have 0\.0 MB"):
            send()
    with pytest.raises(broker.MessageTooLarge):
        broker.send_orders(app, [("gpu-1", ORDER), ("gpu-1", LARGE)])
    assert broker.waiting_messages(app, broker.CONTROL_QUEUE) == 0
    assert broker.waiting_messages(app, broker.worker_queue("gpu-1")) == 0
    broker.send_update(app, UPDATE)
    assert broker.waiting_messages(app, broker.CONTROL_QUEUE) == 1


def test_a_note_to_stop_is_found_by_its_attempt_and_goes_away_by_itself(app, server):
    notes.request_stop(app, "a1", "cancelled")
    assert notes.stop_requested(app, "a1") == "cancelled"
    assert notes.stop_requested(app, "a2") is None
    left = redis.Redis.from_url(server.url).ttl("evalyard:stop:a1")
    assert 0 < left <= notes.STOP_SECONDS


def test_a_forecast_is_read_by_its_worker_alone_and_the_newest_counts(app, server):
    model = ORDER.work.model
    notes.leave_forecast(app, "gpu-1", Forecast(models=(model, model)))
    notes.leave_forecast(app, "gpu-1", Forecast(models=(model,)))
    assert notes.read_forecast(app, "gpu-1") == Forecast(models=(model,))
    assert notes.read_forecast(app, "gpu-2") is None
    assert 0 < redis.Redis.from_url(server.url).ttl("evalyard:next:gpu-1") <= notes.FORECAST_SECONDS
    assert broker.waiting_messages(app, broker.worker_queue("gpu-1")) == 0


def test_a_forecast_that_is_none_is_refused_with_a_sentence(app, server):
    redis.Redis.from_url(server.url).set("evalyard:next:gpu-1", "{")
    with pytest.raises(broker.UnreadableMessage, match="Forecast"):
        notes.read_forecast(app, "gpu-1")


def test_a_broker_that_is_away_is_said_without_its_password_and_asks_nobody_to_stop(tmp_path: Path):
    with valkey(tmp_path / "gone") as gone:
        app = broker.make_app(gone.url, name="test")
        broker.send_update(app, UPDATE)
        gone.kill()
        with pytest.raises(broker.BrokerLost) as error:
            broker.send_update(app, UPDATE)
        assert gone.password not in str(error.value)
        assert notes.stop_requested(app, "a1") is None
        assert notes.read_forecast(app, "gpu-1") is None
        assert not broker.answers(app)
        gone.start()
        broker.send_update(app, UPDATE)
        # The first may have died with the broker, which writes to its disk once a second; leases make that harmless.
        assert broker.waiting_messages(app, broker.CONTROL_QUEUE) in (1, 2)


def test_a_message_of_another_version_is_refused_with_the_attempt_it_was_about():
    payload = ORDER.model_dump(mode="json") | {"version": 99, "new_field": 1}
    with pytest.raises(broker.UnreadableMessage, match="version 99") as error:
        broker.read(Order, payload)
    assert error.value.attempt == "a1"


def test_a_message_of_a_newer_release_is_read_without_the_fields_that_it_added():
    order = ORDER.model_dump(mode="json") | {"hurry": True}
    order["work"] |= {"colour": "blue"}
    order["work"]["model"] |= {"taste": 1}
    assert broker.read(Order, order) == ORDER


def test_a_message_of_an_older_release_lacks_what_was_added_since_and_is_read():
    """As the first release wrote it."""
    order = {
        "version": 1, "attempt": "a1", "job": 1, "evaluation": 1, "lease_seconds": 60.0, "output": "responses/x/a1",
        "work": {
            "stage": "infer", "identity": {}, "engine": "scripted", "sheets": {}, "attempt": "",
            "model": {"name": "org/model", "revision": "0" * 40, "precision": "float32"},
        },
    }  # fmt: skip
    assert broker.read(Order, order) == ORDER
    beat = {
        "version": 1, "worker": "w", "boot": "b", "kind": "engine", "at": "2026-01-02T00:00:00Z", "slots": 1,
        "running": {"a1": {"phase": "answering", "done": 1, "total": 2, "benchmarks_done": []}},
    }  # fmt: skip
    assert broker.read(Heartbeat, beat).running["a1"].done == 1


@pytest.mark.parametrize("payload", [None, "text", [], {}, {"version": 1}, {"version": 1, "attempt": 3}])
def test_what_is_no_message_is_refused_with_a_sentence(payload):
    with pytest.raises(broker.UnreadableMessage):
        broker.read(Heartbeat, payload)


@pytest.mark.parametrize("url", ["amqp://guest@host//", "sqs://", "host:6379", "redis//host"])
def test_an_address_of_another_kind_of_broker_is_refused(url):
    with pytest.raises(broker.BrokerError, match="EVALYARD_BROKER_URL"):
        broker.make_app(url, name="test")


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "x" * 101, "a\n"])
def test_a_name_that_makes_no_queue_is_refused(name):
    with pytest.raises(broker.BrokerError, match="Worker name"):
        broker.worker_queue(name)
