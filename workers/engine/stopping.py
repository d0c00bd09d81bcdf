"""How the infer stage ends when it is asked to: at once while nothing waits to be sealed, else by whoever feeds."""

import os
import signal
import sys
from types import FrameType

from workers.stage import emit

EXIT_STOPPED = 3


class Stop:
    """Whether the stage was asked to stop, by SIGTERM; made in the main thread."""

    def __init__(self) -> None:
        self.asked = False
        self._at_once = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if self._at_once:
            leave_stopped()

    def nothing_to_seal(self) -> None:
        """From now on end at once."""
        self._at_once = True
        if self.asked:
            leave_stopped()

    def seal_first(self) -> None:
        """From now on answers may wait to be sealed."""
        self._at_once = False

    def __call__(self) -> bool:
        return self.asked


def leave_stopped() -> None:
    """Say that the stage stopped as asked, and end it."""
    emit("stopped")
    sys.stderr.flush()
    os._exit(EXIT_STOPPED)


def leave_unheard() -> None:
    """End before a word is said of the work, so that it is begun again with an engine of its own."""
    print("This work needs another engine than the one that is up.", file=sys.stderr, flush=True)
    os._exit(1)
