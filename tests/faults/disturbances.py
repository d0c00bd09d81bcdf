"""When the hub could not hear or act, as the storm that caused it knows: recovery is judged outside these times.

Also how late this machine was: on a busy one a thread that is due waits for its turn, and so does every heartbeat.
"""

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tests.fleet import Fleet

READY = b"ready."
"""What a part logs once it reads its queue."""

PROBE_SECONDS = 0.1


@dataclass
class Interval:
    name: str
    cause: str
    begin: datetime
    end: datetime | None = None


@dataclass(frozen=True)
class Lateness:
    """A thread that was due, and how long it waited for its turn."""

    ticks: float
    """When it had its turn, by the monotonic clock."""
    at: datetime
    seconds: float


class Disturbances:
    def __init__(self, fleet: Fleet, controls: Sequence[str]) -> None:
        self._fleet = fleet
        self._controls = controls
        self._intervals: list[Interval] = []
        self._starting: dict[str, int] = {}
        """Controls that were started and are not ready, with the length of their log before."""
        self._late: list[Lateness] = []
        self._stop = threading.Event()
        self.peak_load = 0.0
        self._lock = threading.Lock()
        self._probe = threading.Thread(target=self._watch, name="lateness", daemon=True)
        self._probe.start()

    def begin(self, cause: str, *names: str) -> None:
        """These control processes (all of them by default) cannot do their part from now on."""
        with self._lock:
            for name in names or self._controls:
                if self._open(name, cause) is None:
                    self._intervals.append(Interval(name, cause, datetime.now(UTC)))

    def end(self, cause: str, *names: str) -> None:
        with self._lock:
            for name in names or self._controls:
                interval = self._open(name, cause)
                if interval is not None:
                    interval.end = datetime.now(UTC)

    def starting(self, name: str) -> None:
        """A control process is being started: it is down until it says that it is ready."""
        self.begin("down", name)
        log = self._fleet.folder / f"{name}.log"
        self._starting[name] = log.stat().st_size if log.exists() else 0

    def listens_at(self, lease_until: datetime, *, lease: timedelta) -> datetime:
        """The first moment after the lease's end at which some control process has listened for a whole lease."""
        self._look()
        moments = []
        for name in self._controls:
            moment = lease_until
            for interval in sorted((one for one in self._intervals if one.name == name), key=lambda one: one.begin):
                if interval.begin <= moment and (interval.end is None or interval.end + lease > moment):
                    moment = (interval.end or datetime.max.replace(tzinfo=UTC) - 2 * lease) + lease
            moments.append(moment)
        return min(moments)

    def late_since(self, moment: float) -> float:
        """Seconds by which this machine was late since a moment of the monotonic clock, in all."""
        return sum(one.seconds for one in self._late if one.ticks >= moment)

    def late_between(self, begin: datetime, end: datetime) -> float:
        """Seconds by which this machine was late between two moments."""
        return sum(one.seconds for one in self._late if begin <= one.at <= end + timedelta(seconds=one.seconds))

    def close(self) -> None:
        self._stop.set()
        self._probe.join()

    def _open(self, name: str, cause: str) -> Interval | None:
        return next((one for one in self._intervals if (one.name, one.cause, one.end) == (name, cause, None)), None)

    def _look(self) -> None:
        for name, size in list(self._starting.items()):
            with (self._fleet.folder / f"{name}.log").open("rb") as log:
                log.seek(size)
                ready = READY in log.read()
            if ready:
                del self._starting[name]
                self.end("down", name)

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(PROBE_SECONDS):
            now = time.monotonic()
            if now - last > 5 * PROBE_SECONDS:
                self._late.append(Lateness(now, datetime.now(UTC), now - last))
            last = now
            self.peak_load = max(self.peak_load, os.getloadavg()[0] / (os.cpu_count() or 1))
            self._look()
