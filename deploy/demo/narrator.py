"""Says how work stands: a line when it is new, and again with the seconds it has lasted when nothing else was said.

A minute without a word looks like a program that hangs. Pure but for the given clock and voice.
"""

import time
from collections.abc import Callable, Mapping

SILENCE_SECONDS = 10.0


class Narrator:
    """One voice for several things that go on at the same time, each known by its number."""

    def __init__(self, say: Callable[[str], None], *, now: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._now = now
        self._said: dict[int, tuple[str, float]] = {}
        """The last line about each thing, and since when it holds."""
        self._spoke = now()

    def tell(self, lines: Mapping[int, str], *, at_work: int | None = None) -> None:
        """Say what is new; after a silence say again how `at_work`, the thing that goes on just now, stands."""
        now = self._now()
        for number, line in lines.items():
            if self._said.get(number, ("",))[0] != line:
                self._said[number] = line, now
                self._speak(line)
        if at_work is not None and now - self._spoke >= SILENCE_SECONDS:
            line, since = self._said[at_work]
            self._speak(f"{line} ({now - since:.0f} s)")

    def _speak(self, line: str) -> None:
        self._say(line)
        self._spoke = self._now()
