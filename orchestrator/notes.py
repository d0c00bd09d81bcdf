"""Notes in the broker, each of one name and for some minutes: the last one counts, and none is waited for.

To stop an attempt, what an operator wants of a worker, what it may be ordered next, and whose a worker's name is. They
are no messages, because a queue is read only when a slot is free. Each is repeated, so that a lost one does no harm.
"""

import json

import redis
from celery import Celery

from orchestrator import wire
from orchestrator.broker import KEY_PREFIX, lost, read, shared_client

FORECAST_SECONDS = 600
"""How long a forecast is kept for its worker; the hub repeats it in time."""

MODE_SECONDS = 600
"""How long a note of what an operator wants of a worker is kept; the hub repeats it at each heartbeat that differs."""

STOP_SECONDS = 600
"""How long a note to stop is kept; the hub repeats it at each heartbeat that still lists the attempt."""

REFUSAL_SECONDS = 3600
"""How long it is remembered that a second worker of a name was turned away."""


def request_stop(app: Celery, attempt: str, reason: str) -> None:
    """Ask whoever runs this attempt to stop it.

    Raises:
        BrokerLost: it could not be left.
    """
    _leave(app, f"stop:{attempt}", reason or "stopped by the hub", seconds=STOP_SECONDS)


def stop_requested(app: Celery, attempt: str) -> str | None:
    """Why this attempt should stop, or None. A broker that is away asks nothing."""
    return _read(app, f"stop:{attempt}")


def leave_mode(app: Celery, worker: str, mode: wire.Mode) -> None:
    """Say what an operator wants of a worker, in place of what was said before.

    Raises:
        BrokerLost: it could not be left.
    """
    _leave(app, f"mode:{worker}", mode.value, seconds=MODE_SECONDS)


def read_mode(app: Celery, worker: str) -> wire.Mode | None:
    """What an operator wants of a worker; None for no news, which changes nothing."""
    text = _read(app, f"mode:{worker}")
    return wire.Mode(text) if text in set(wire.Mode) else None


def leave_forecast(app: Celery, worker: str, forecast: wire.Forecast) -> None:
    """Say what a worker is likely to be ordered next, in place of what was said before.

    Raises:
        BrokerLost: it could not be left.
    """
    _leave(app, f"next:{worker}", forecast.model_dump_json(), seconds=FORECAST_SECONDS)


def read_forecast(app: Celery, worker: str) -> wire.Forecast | None:
    """What a worker is likely to be ordered next; None when nobody can say.

    Raises:
        UnreadableMessage: another version, or not such a note.
    """
    text = _read(app, f"next:{worker}")
    if text is None:
        return None
    try:
        payload = json.loads(text)
    except ValueError:
        payload = None
    return read(wire.Forecast, payload)


def hold_name(app: Celery, worker: str, holder: str, *, seconds: int, over: str | None = None) -> str | None:
    """Hold a worker's name for so long, which is to be repeated in time; who holds it instead, None where nobody does.

    From the holder `over` it is taken. A broker that is away holds no name for anyone, and carries nothing either.
    """
    client, key = shared_client(app), f"{KEY_PREFIX}name:{worker}"
    try:
        if client.set(key, holder, ex=seconds, nx=True):
            return None
        there = _read(app, f"name:{worker}")
        if there is not None and there not in (holder, over):
            return there
        client.set(key, holder, ex=seconds)
    except redis.RedisError:
        pass
    return None


def leave_name(app: Celery, worker: str, holder: str) -> None:
    """Let go of a name that this holder holds. One that cannot be let go of is free when its time is over."""
    try:
        if hold_name(app, worker, holder, seconds=1) is None:
            shared_client(app).delete(f"{KEY_PREFIX}name:{worker}")
    except redis.RedisError:
        return


def leave_refusal(app: Celery, worker: str, sentence: str) -> None:
    """Tell whoever has the name that another worker of it was turned away. Nothing depends on it."""
    try:
        shared_client(app).set(f"{KEY_PREFIX}refused:{worker}", sentence, ex=REFUSAL_SECONDS)
    except redis.RedisError:
        return


def read_refusal(app: Celery, worker: str) -> str:
    """What the last worker said that was turned away for this name; empty where there was none."""
    return _read(app, f"refused:{worker}") or ""


def _leave(app: Celery, name: str, text: str, *, seconds: int) -> None:
    try:
        shared_client(app).set(KEY_PREFIX + name, text, ex=seconds)
    except redis.RedisError as error:
        raise lost(app, error) from error


def _read(app: Celery, name: str) -> str | None:
    """A note as text; None where there is none, or the broker is away."""
    try:
        note = shared_client(app).get(KEY_PREFIX + name)
    except redis.RedisError:
        return None
    return note.decode(errors="replace") if isinstance(note, bytes) else note
