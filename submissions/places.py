"""How many requests may do the same heavy work at a time: the rest is told to come back, and keeps nobody waiting."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from submissions.faults import Busy


class Places:
    """So many places for those who do one kind of work; each holds one of the threads that answer everybody."""

    def __init__(self, most: int, *, sentence: str, each: int | None = None) -> None:
        """`sentence` is what those are told for whom there is none; `each`: how many one person may have of them."""
        self._most, self._each, self._sentence = most, each or most, sentence
        self._lock = threading.Lock()
        self._held = 0
        self._by: Counter[int] = Counter()

    @contextmanager
    def taken(self, person: int | None = None) -> Iterator[None]:
        """One place, for as long as the work takes; where nobody is named, none has a share of their own.

        Raises:
            Busy: there is none.
        """
        with self._lock:
            if self._held >= self._most or (person is not None and self._by[person] >= self._each):
                raise Busy(self._sentence)
            self._count(person, 1)
        try:
            yield
        finally:
            with self._lock:
                self._count(person, -1)

    def _count(self, person: int | None, more: int) -> None:
        self._held += more
        if person is not None:
            self._by[person] += more
            if not self._by[person]:
                del self._by[person]
