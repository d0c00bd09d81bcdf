"""Ends a worker that a launcher started once it has had nothing to do for a while: its GPUs are lent.

The hub hears that it stops before it does, so that no order is sent to a worker that is going.
"""

import threading
import time
from collections.abc import Callable

from workers.supervisor import Supervisor

NOTICE_SECONDS = 5.0
"""From saying so to the end. An order that comes meanwhile is given back at once, at no cost."""

LOOK_SECONDS = 1.0


class UntilIdle(threading.Thread):
    def __init__(
        self,
        supervisor: Supervisor,
        seconds: float,
        *,
        end: Callable[[], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name="until-idle", daemon=True)
        self._supervisor = supervisor
        self._seconds = seconds
        self._end = end
        self._now = now
        self._busy_at: float | None = None
        self._leaving_at: float | None = None

    def run(self) -> None:
        pause = threading.Event()
        while not self.is_over():
            pause.wait(LOOK_SECONDS)
        self._end()

    def is_over(self) -> bool:
        """Look once; whether the worker may end now."""
        now = self._now()
        if self._leaving_at is not None:
            return now - self._leaving_at >= NOTICE_SECONDS and not self._supervisor.progress()
        if self._busy_at is None or self._supervisor.progress():
            self._busy_at = now
        elif now - self._busy_at >= self._seconds:
            self._leaving_at = now
            self._supervisor.stopping.set()
            self._supervisor.changed.set()
        return False
