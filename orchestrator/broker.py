"""The broker: messages between the hub and its workers. Notes beside them are in `orchestrator.notes`.

It carries and never decides: a message that is lost, late or doubled is made harmless by leases and fences in the
database, so nothing here waits for a result, and a receiver must handle every message twice without harm.
"""

import json
import re
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit, urlunsplit

import redis
from celery import Celery
from kombu.exceptions import BatchPublishError, OperationalError
from pydantic import BaseModel, ValidationError

from orchestrator import wire

CONTROL_QUEUE = "control"
"""Queue of everything that workers tell the hub."""

ORDER_TASK = "evalyard.order"
UPDATE_TASK = "evalyard.update"
HEARTBEAT_TASK = "evalyard.heartbeat"
"""Celery task names; each takes one argument, the message as JSON."""

KEY_PREFIX = "evalyard:"
"""Before every key, so that a Valkey or Redis may be shared with other programs."""

MOST_BYTES = 16 << 20
"""Of a message as JSON. What a million documents came to, a float each, is 5.3 MB of a score's update."""
MOST_RAW_BYTES = MOST_BYTES * 3 // 2
"""Of a message as it lies in the broker, where Celery keeps it as base64 with headers."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

MessageT = TypeVar("MessageT", wire.Order, wire.Update, wire.Heartbeat, wire.Forecast)


class BrokerError(Exception):
    """Something about the broker; the subclasses say what."""


class BrokerLost(BrokerError):
    """The broker cannot be reached. Check that it runs; whatever was not sent is repeated or found by lease."""


class MessageTooLarge(BrokerError):
    """The message has more bytes than one may have. It was not sent, and would not be the next time."""


def lost(app: Celery, error: Exception) -> BrokerLost:
    """What to raise where the broker of this app was not reached."""
    return BrokerLost(
        f"The broker at {redacted(str(app.conf.broker_url))} cannot be reached: {error}. Check that it runs; "
        "what was not sent is repeated."
    )


class UnreadableMessage(BrokerError):
    """A message that this version cannot read. `attempt` names the attempt that it was about, where that shows."""

    def __init__(self, sentence: str, *, attempt: str = "") -> None:
        super().__init__(sentence)
        self.attempt = attempt


def make_app(url: str, *, name: str) -> Celery:
    """A Celery app that only carries messages: JSON, no results, acknowledged on arrival, never re-run by Celery.

    The hub reads its own queue without Celery (`orchestrator.inbox`), and loses no message with its process.

    Raises:
        BrokerError: the address is not one of Valkey or Redis.
    """
    scheme = urlsplit(url).scheme
    if scheme not in ("redis", "rediss", "memory"):
        raise BrokerError(
            f"Broker address {redacted(url)!r} is not one of Valkey or Redis. Give redis://HOST:PORT/DATABASE "
            "(or rediss:// for TLS) as EVALYARD_BROKER_URL."
        )
    app = Celery(name, broker=url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue=CONTROL_QUEUE,
        task_publish_retry=True,
        task_publish_retry_policy={"max_retries": 3, "interval_start": 0.1, "interval_step": 0.4, "interval_max": 1.0},
        worker_prefetch_multiplier=1,
        # Cancelling at a connection loss would throw away hours of GPU work at a blip of the network.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # Remote control would let whoever reaches the broker stop or change workers.
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=5,
        enable_utc=True,
        timezone="UTC",
    )
    if scheme != "memory":
        app.conf.broker_transport_options = {
            "global_keyprefix": KEY_PREFIX,
            "socket_connect_timeout": 5,
            "socket_timeout": 30,
            "socket_keepalive": True,
            "health_check_interval": 10,
            # Nothing is sent with a priority: kombu would otherwise ask for four keys of each queue.
            "priority_steps": [0],
            # Only a message whose receiver died before it could acknowledge it comes again.
            "visibility_timeout": 20,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
        }
    return app


def worker_queue(worker: str) -> str:
    """Name of the queue that one worker alone reads."""
    if not _NAME.fullmatch(worker):
        raise BrokerError(
            f"Worker name {worker!r} cannot be used. Take letters, digits, dot, dash and underscore, at most 100, "
            "and start with a letter or digit."
        )
    return f"worker.{worker}"


def send_order(app: Celery, worker: str, order: wire.Order) -> None:
    """Put an order into a worker's own queue. Call it after the commit that made the attempt.

    Raises:
        BrokerLost, MessageTooLarge: it was not sent.
    """
    _send(app, ORDER_TASK, order, queue=worker_queue(worker))


def send_orders(app: Celery, orders: Sequence[tuple[str, wire.Order]]) -> None:
    """Put orders into the queues of these workers, all in one journey. Some may arrive where it fails.

    Raises:
        BrokerLost, MessageTooLarge: not all were sent.
    """
    if urlsplit(str(app.conf.broker_url)).scheme == "memory":
        for worker, order in orders:
            send_order(app, worker, order)
        return
    try:
        with app.producer_or_acquire() as producer, producer.batch():
            for worker, order in orders:
                _send(app, ORDER_TASK, order, queue=worker_queue(worker), producer=producer)
    except BatchPublishError:
        # The connection was stale, or the broker is away: one by one is tried for longer. Twice does no harm.
        for worker, order in orders:
            send_order(app, worker, order)
    except (OperationalError, redis.RedisError, OSError) as error:
        raise lost(app, error) from error


def send_update(app: Celery, update: wire.Update) -> None:
    """Tell the hub what became of an attempt.

    Raises:
        BrokerLost, MessageTooLarge: it was not sent.
    """
    _send(app, UPDATE_TASK, update, queue=CONTROL_QUEUE)


def send_heartbeat(app: Celery, heartbeat: wire.Heartbeat) -> None:
    """Tell the hub that a worker lives. Never retried: the next one follows in seconds."""
    _send(app, HEARTBEAT_TASK, heartbeat, queue=CONTROL_QUEUE, retry=False)


def read(kind: type[MessageT], payload: Any) -> MessageT:
    """The message in a task's argument. Fields that are not known here are passed over.

    A newer release adds fields with defaults, and raises `wire.VERSION` where one changes its meaning: so a hub and
    workers of neighbouring releases understand each other, whichever was upgraded first.

    Raises:
        UnreadableMessage: another version, or not such a message.
    """
    facts = payload if isinstance(payload, dict) else {}
    attempt = str(facts.get("attempt", ""))
    version = facts.get("version")
    if version != wire.VERSION:
        raise UnreadableMessage(
            f"{kind.__name__} has message version {version!r}, and this installation reads version {wire.VERSION}. "
            "Bring hub and workers to neighbouring releases of Evalyard.",
            attempt=attempt,
        )
    try:
        return kind.model_validate(payload, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnreadableMessage(
            f"{kind.__name__} cannot be read: {where}: {first['msg']}. "
            "Bring hub and workers to neighbouring releases of Evalyard.",
            attempt=attempt,
        ) from error


def waiting_messages(app: Celery, queue: str) -> int | None:
    """How many messages wait in a queue, or None when the broker is away."""
    notes = shared_client(app)
    if not isinstance(notes, redis.Redis):
        return None
    try:
        return int(notes.llen(KEY_PREFIX + queue))
    except redis.RedisError:
        return None


def open_client(app: Celery) -> redis.Redis:
    """A client of the broker for a reader of its own; it waits up to 30 s for an answer.

    Raises:
        BrokerError: the broker is in memory alone.
    """
    url = str(app.conf.broker_url)
    if urlsplit(url).scheme == "memory":
        raise BrokerError("A broker in memory has no messages of other processes. Give redis://HOST:PORT/DATABASE.")
    return redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=30, health_check_interval=10)


def answers(app: Celery) -> bool:
    """Whether the broker can be reached now."""
    notes = shared_client(app)
    if not isinstance(notes, redis.Redis):
        return True
    try:
        return bool(notes.ping())
    except redis.RedisError:
        return False


def redacted(url: str) -> str:
    """An address without its password, for logs and sentences."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}"))


def _send(app: Celery, task: str, message: BaseModel, *, queue: str, retry: bool = True, producer: Any = None) -> None:
    payload = message.model_dump(mode="json")
    if (size := len(json.dumps(payload))) > MOST_BYTES:
        raise MessageTooLarge(
            f"{type(message).__name__} has {size / 1e6:,.1f} MB, and a message may have {MOST_BYTES / 1e6:,.1f} MB. "
            "Report this as a bug, with what makes it so large."
        )
    try:
        # Celery writes a readable form of the arguments into the message's headers and logs: not a token's place.
        app.send_task(task, args=[payload], queue=queue, retry=retry, argsrepr="(…)", producer=producer)
    except (OperationalError, redis.RedisError, OSError) as error:
        raise lost(app, error) from error


class MemoryNotes:
    """Notes of the `memory://` broker, which lives in one process and serves tests."""

    def __init__(self) -> None:
        self._notes: dict[str, str] = {}

    def set(self, key: str, value: str, *, ex: int, nx: bool = False) -> bool:
        if nx and key in self._notes:
            return False
        self._notes[key] = value
        return True

    def delete(self, key: str) -> None:
        self._notes.pop(key, None)

    def get(self, key: str) -> str | None:
        return self._notes.get(key)


class _Keeper(NamedTuple):
    lock: threading.Lock
    clients: dict[str, "redis.Redis | MemoryNotes"]


_keeper = _Keeper(threading.Lock(), {})


def shared_client(app: Celery) -> "redis.Redis | MemoryNotes":
    """One client for each broker address; redis-py's own pool makes it safe for threads."""
    url = str(app.conf.broker_url)
    with _keeper.lock:
        if url not in _keeper.clients:
            _keeper.clients[url] = (
                MemoryNotes()
                if url.startswith("memory:")
                else redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=5)
            )
        return _keeper.clients[url]
