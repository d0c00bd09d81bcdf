"""Tampers with the messages between hub and workers: takes some from the broker, gives them back twice, late or never.

A thief that reads the same queues as their owners gets a share of the messages; those that it does not want it puts
back at once.
"""

import json
import random
import threading
import time
from dataclasses import dataclass, field

import redis

from orchestrator.broker import CONTROL_QUEUE, KEY_PREFIX

WINDOW_SECONDS = 3.0
"""How long the thief waits for a message of the kind that it wants."""


@dataclass
class Post:
    url: str
    held: list[tuple[str, bytes]] = field(default_factory=list)
    """Messages that are to come late, with their queues."""

    def steal(self, kind: str, workers: list[str]) -> tuple[str, bytes] | None:
        """A message of this kind (`order`, `update` or `heartbeat`) that its receiver has not got; None when none came.

        Raises:
            redis.RedisError: the broker is away.
        """
        client = self._client()
        keys = (
            [KEY_PREFIX + f"worker.{worker}" for worker in workers] if kind == "order" else [KEY_PREFIX + CONTROL_QUEUE]
        )
        deadline = time.monotonic() + WINDOW_SECONDS
        while time.monotonic() < deadline:
            found = client.brpop(keys, timeout=0.2)
            if found is None:
                continue
            key, message = found[0].decode(), found[1]
            if json.loads(message)["headers"]["task"] == f"evalyard.{kind}":
                return key, message
            client.rpush(key, message)
            threading.Event().wait(0.01)  # its owner is woken first
        return None

    def deliver(self, key: str, message: bytes) -> None:
        """Put a message where its receiver reads; nothing when the broker is away."""
        try:
            self._client().lpush(key, message)
        except redis.RedisError:
            return

    def flush(self) -> None:
        """Forget every message, as a broker does that was started again empty."""
        self._client().flushall()

    def _client(self) -> "redis.Redis":
        return redis.Redis.from_url(self.url, socket_connect_timeout=2, socket_timeout=5)


def draw_kind(draw: random.Random) -> str:
    return draw.choices(("update", "order", "heartbeat"), (5, 3, 2))[0]
