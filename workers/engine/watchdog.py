"""Notices that the engine hangs: no step ended for so long. Ends the process then, with a sentence and every stack.

A thread looks every now and then. An engine that hangs and keeps the interpreter would stop that thread, too: a timer
that needs no interpreter then ends the process after twice the time, with the stacks in the log and no sentence.
Loading is not watched here: the supervisor ends a stage that says nothing for hours.
"""

import faulthandler
import sys
import threading
import time

from orchestrator.wire import FailureKind
from workers import stage
from workers.stage import StageFailure

MOST_PAUSE = 5.0
"""Seconds between two looks at most."""


class Watchdog:
    """Use as a context around feeding; `step_ended` is called after every step."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = threading.Event()
        self._ended_at = time.monotonic()

    def step_ended(self) -> None:
        self._ended_at = time.monotonic()

    def __enter__(self) -> "Watchdog":
        self.step_ended()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while True:
            faulthandler.dump_traceback_later(2 * self._seconds, exit=True)
            if self._end.wait(min(self._seconds / 4, MOST_PAUSE)):
                faulthandler.cancel_dump_traceback_later()
                return
            if time.monotonic() - self._ended_at > self._seconds:
                faulthandler.dump_traceback(file=sys.stderr)
                sentence = f"The engine hangs: no step of it ended for {self._seconds:g} s."
                stage.end_failed(StageFailure(FailureKind.ENGINE, sentence))
