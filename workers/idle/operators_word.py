"""What an operator wants of this worker, asked for in a thread of its own.

The look at the GPUs only reads the last answer: a broker that is away, or whose name nobody resolves, must not delay
it.
"""

import threading
from collections.abc import Callable

from orchestrator.wire import Mode


class OperatorsWord(threading.Thread):
    def __init__(self, ask: Callable[[], Mode | None], *, pause_seconds: float) -> None:
        """`ask` may take long; it returns None where there is no news, which changes nothing."""
        super().__init__(name="operators-word", daemon=True)
        self.stopping = threading.Event()
        self._ask = ask
        self._pause = pause_seconds
        self._last: Mode | None = None

    def run(self) -> None:
        while not self.stopping.is_set():
            self.step()
            self.stopping.wait(self._pause)

    def step(self) -> None:
        """Ask once."""
        self._last = self._ask() or self._last

    def last(self) -> Mode | None:
        """The last answer; None before there was one."""
        return self._last
