"""Says how work stands: a line when it is new, and again with the seconds it has lasted when nothing else was said.

A minute without a word looks like a program that hangs. Every command that makes somebody wait speaks through this,
also the one that runs before anything is installed: the standard library is all that it may import.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

SILENCE_SECONDS = 10.0


class Narrator:
    """One voice for several things that go on at the same time, each known by its key. Takes calls of any thread."""

    def __init__(self, say: Callable[[str], None], *, now: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._now = now
        self._said: dict[Hashable, tuple[str, float]] = {}
        """The last line about each thing, and since when it holds."""
        self._spoke = now()
        self._lock = threading.Lock()

    def tell(
        self, lines: Mapping[Any, str], *, at_work: Hashable | None = None, details: Mapping[Any, str] = {}
    ) -> None:
        """Say what is new; after a silence say again how `at_work`, the thing that goes on just now, stands.

        `details` follow a line whenever it is said, and are never news by themselves: counts that move all the time.
        """
        with self._lock:
            now = self._now()
            for key, line in lines.items():
                if self._said.get(key, ("",))[0] != line:
                    self._said[key] = line, now
                    self._speak(line + details.get(key, ""))
            if at_work is not None and now - self._spoke >= SILENCE_SECONDS:
                line, since = self._said[at_work]
                self._speak(f"{line}{details.get(at_work, '')} ({now - since:.0f} s)")

    def _speak(self, line: str) -> None:
        self._say(line)
        self._spoke = self._now()


@contextmanager
def every_second(look: Callable[[], None]) -> Iterator[None]:
    """Call `look` each second until the block ends, from a thread of its own: for work that tells nothing itself."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(1.0):
            look()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def telling(line: str, say: Callable[[str], None], *, quiet_start: bool = False) -> Iterator[Callable[[str], None]]:
    """Say the line, and again with its seconds after each silence, until the block ends; gives a voice for the rest.

    With a quiet start the line is first said after a silence: for what is mostly over at once.
    """
    narrator = Narrator(say)
    if quiet_start:
        narrator._said["work"] = line, narrator._now()
    stand = {"work": line}
    said = 0

    def tell(other: str) -> None:
        nonlocal said
        said += 1
        narrator.tell({said: other})

    narrator.tell(stand, at_work="work")
    with every_second(lambda: narrator.tell(stand, at_work="work")):
        yield tell
