"""Reads what workers send to the hub: one reader, and as many messages as wait are taken in one go.

It begins with the first that comes and waits for no company: so the cost of a transaction is shared when there is much
to do, and nothing is later when there is little. The messages are Celery's, as every release of a worker sends them; a
Celery worker would make a task, a thread and three journeys to the broker of each.

A message moves from the queue into the reader's own list, and leaves that when it was applied. What a reader holds that
has been silent for 5 s goes back into the queue: an update that is lost with a killed process would cost a whole
attempt. So a message may come twice, which changes nothing.
"""

import base64
import json
import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import redis
from celery import Celery
from sqlalchemy.exc import OperationalError

from orchestrator import broker, db
from orchestrator.tasks import Letter

log = logging.getLogger(__name__)

MOST = 64
"""Messages taken in one go: few enough that no heartbeat waits long for it."""
LOOK_SECONDS = 1
"""How often it looks whether it is to stop, while nothing comes."""
PAUSE_SECONDS = 1.0
"""Between tries while the broker or the database is away."""
SILENT_SECONDS = 5
"""A reader that has said nothing for so long is taken to be dead. Wrongly, now and then: then a message comes twice."""

QUEUE = broker.KEY_PREFIX + broker.CONTROL_QUEUE
READERS = QUEUE + ".readers"
"""Set of the names of all that read the queue."""


def _held_by(reader: str) -> str:
    """List of the messages that a reader has taken and not applied yet."""
    return f"{QUEUE}.held:{reader}"


def _sign_of(reader: str) -> str:
    """There while the reader lives."""
    return f"{QUEUE}.reader:{reader}"


class Inbox:
    """The hub's queue, read until told to stop."""

    def __init__(self, app: Celery, take: Callable[[Sequence[Letter]], None], *, stopping: threading.Event) -> None:
        """`take` gets the messages of a go, in the order in which they came, and may raise `OperationalError`."""
        self._take, self._stopping = take, stopping
        self._client = broker.open_client(app)
        self._name = uuid.uuid4().hex

    def run(self) -> None:
        """Read until stopped. A broker or database that is away is tried again each second."""
        while not self._stopping.is_set():
            try:
                self.read_once(wait=LOOK_SECONDS)
            except redis.RedisError as error:
                log.warning("broker_away error=%s", error)
                self._stopping.wait(PAUSE_SECONDS)
            except OperationalError as error:
                # What was taken stays held, and is taken up again first.
                db.log_lost(log, error)
                self._stopping.wait(PAUSE_SECONDS)
        with suppress(redis.RedisError):
            self._client.delete(_sign_of(self._name))  # whoever comes next need not wait for what it held

    def read_once(self, *, wait: int) -> int:
        """Take what waits, or the first that comes within so many seconds; returns how many messages it was.

        Raises:
            redis.RedisError, OperationalError: the broker or the database is away; nothing is lost.
        """
        readers, held, waiting = self._look()
        for reader in readers - {self._name}:
            self._give_back_of(reader)
        # What it could not apply before comes first.
        held = held or self._fetch(min(waiting, MOST), wait)
        if held:
            # The oldest is the last of the list.
            self._apply([one for raw in reversed(held) if (one := letter(raw)) is not None])
            self._client.delete(_held_by(self._name))
        return len(held)

    def _apply(self, letters: Sequence[Letter]) -> None:
        try:
            self._take(letters)
        except OperationalError:
            raise
        except Exception:
            # A fault of the hub itself: the same messages would meet it again, and keep all others waiting.
            log.exception("messages_not_taken number=%s", len(letters))
            if len(letters) > 1:
                for one in letters:
                    self._apply([one])

    def _look(self) -> tuple[set[str], Sequence[bytes], int]:
        """Say that this one lives: all readers, what this one holds already, and how many messages wait."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.set(_sign_of(self._name), "1", ex=SILENT_SECONDS)
            pipe.sadd(READERS, self._name)
            pipe.smembers(READERS)
            pipe.lrange(_held_by(self._name), 0, -1)
            pipe.llen(QUEUE)
            *_, readers, held, waiting = pipe.execute()
        return {name.decode() for name in readers}, held, waiting

    def _fetch(self, most: int, wait: int) -> Sequence[bytes]:
        """Move what waits into the reader's own list; the newest first."""
        held = _held_by(self._name)
        if not most:
            first: Any = self._client.blmove(QUEUE, held, wait, "RIGHT", "LEFT")
            return () if first is None else (first,)
        with self._client.pipeline(transaction=False) as pipe:
            for _ in range(most):
                pipe.lmove(QUEUE, held, "RIGHT", "LEFT")
            pipe.lrange(held, 0, -1)
            found: Sequence[bytes] = pipe.execute()[-1]
            return found

    def _give_back_of(self, reader: str) -> None:
        """Put what a silent reader holds back into the queue, where it comes first."""
        with self._client.pipeline() as pipe:
            pipe.watch(_sign_of(reader))  # type: ignore[no-untyped-call]  # redis gives it no types
            if pipe.exists(_sign_of(reader)):
                return
            log.warning("silent_reader reader=%s", reader)
            while self._client.lmove(_held_by(reader), QUEUE, "LEFT", "RIGHT") is not None:
                pass
            pipe.multi()
            pipe.srem(READERS, reader)
            with suppress(redis.WatchError):  # it has spoken meanwhile, and may hold more by now
                pipe.execute()


def letter(raw: bytes) -> Letter | None:
    """A message as Celery sends it; one that is none has no task, and is refused by whoever applies it.

    None for one that is too large, which no worker sends: it is not even parsed, as that takes many times its size.
    """
    if len(raw) > broker.MOST_RAW_BYTES:
        log.error("message_too_large bytes=%s most=%s", len(raw), broker.MOST_RAW_BYTES)
        return None
    try:
        message = json.loads(raw)
        body = message["body"]
        if message["properties"].get("body_encoding") == "base64":
            body = base64.b64decode(body)
        payload: Any = json.loads(body)[0][0]
        return Letter(str(message["headers"]["task"]), payload)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return Letter("", None)
