"""A worker's name, held in the broker: two processes of one name would take each other's orders, and end its work.

On one host the lock of the scratch folder tells them apart. Between hosts it is this: whoever has the name repeats it
with each heartbeat, and another of the same name is turned away. One that starts in the scratch folder of the holder
has proven by the lock that the holder is dead, and takes over at once; any other waits until the holder was silent for
as long as `seconds`.
"""

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from celery import Celery

from orchestrator import notes

log = logging.getLogger(__name__)

LEAST_SECONDS = 20
"""How long a name is held at least after the last heartbeat."""


class NameTaken(Exception):
    """Another worker has this name; with what to do next."""


class OwnName:
    def __init__(self, app: Celery, name: str, *, host: str, place: str, boot: str, beat_seconds: float) -> None:
        """`place` is the same for all processes of which a lock lets one live at a time."""
        self._app, self._name, self._host, self._place = app, name, host, place
        self._holder = json.dumps([host, place, boot])
        self.seconds = max(LEAST_SECONDS, round(4 * beat_seconds))

    def take(self, *, pause: Callable[[float], None] = time.sleep) -> None:
        """Take the name before the first order can come.

        Raises:
            NameTaken: another worker has it, and repeats it.
        """
        there = None
        for second in range(self.seconds + 1):
            there = self._hold()
            if there is not None and _parts(there)[:2] == [self._host, self._place]:
                there = self._hold(over=there)
            if there is None:
                return
            if not second:
                log.info(
                    "host %s has the name %s: waiting up to %d s for its end",
                    _parts(there)[0],
                    self._name,
                    self.seconds,
                )
            pause(1)
        raise NameTaken(self._turned_away(there or ""))

    def keep(self) -> None:
        """Say again that the name is taken.

        Raises:
            NameTaken: another worker took it, while this one stood still or was cut off.
        """
        there = self._hold()
        if there is not None:
            raise NameTaken(self._turned_away(there))

    def leave(self) -> None:
        notes.leave_name(self._app, self._name, self._holder)

    def refusal(self) -> str:
        """What operators are to be told of another worker that wanted the name; empty for none."""
        return notes.read_refusal(self._app, self._name)

    def _hold(self, over: str | None = None) -> str | None:
        return notes.hold_name(self._app, self._name, self._holder, seconds=self.seconds, over=over)

    def _turned_away(self, there: str) -> str:
        notes.leave_refusal(
            self._app,
            self._name,
            f"Another worker of this name, on host {self._host}, was turned away at {datetime.now(UTC):%Y-%m-%d %H:%M} "
            "UTC. Give it another name with --name.",
        )
        return (
            f"A worker named {self._name} runs on host {_parts(there)[0]} already, and two would take each other's "
            "orders. Give this one another name with --name."
        )


def _parts(holder: str) -> list[str]:
    try:
        host, place, boot = json.loads(holder)
        return [str(host), str(place), str(boot)]
    except (ValueError, TypeError):
        return ["unknown", "", ""]
