"""How many requests may do the same heavy work at a time: the rest is told to come back, and keeps nobody waiting."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from submissions.faults import Busy


class Places:
    """So many places for those who do one kind of work; each holds one of the threads that answer everybody."""

    def __init__(self, most: int, *, sentence: str) -> None:
        """`sentence` is what those are told for whom there is none."""
        self._free = threading.BoundedSemaphore(most)
        self._sentence = sentence

    @contextmanager
    def taken(self) -> Iterator[None]:
        """One place, for as long as the work takes.

        Raises:
            Busy: there is none.
        """
        if not self._free.acquire(blocking=False):
            raise Busy(self._sentence)
        try:
            yield
        finally:
            self._free.release()
