"""Which rows of a ranking are a tie: the best of them, and those that follow which cannot be told apart from it. Pure.

One rule parts a ranking into ties, from the top: the first row begins a tie; each next one belongs to it while it
cannot be told apart from the row that began it; the first that can begins the next tie. So a row is in one tie, the
ties are runs of the ranking, and each row is compared once: a ranking of n rows needs n comparisons, not n².
"""

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from orchestrator.board.chunks import Sorted
from orchestrator.board.standings import Standing

Z = 1.959963984540054
"""Standard errors of a difference that 95 % of differences stay within where there is none."""
ROUNDING = 1e-9
"""Points of an average that are no difference."""

Entry = tuple[Any, int]
"""What a row is ranked by, and its slot."""


class Difference(NamedTuple):
    """How far two rows' averages lie apart, the better one's less the other's, in points."""

    value: float
    stderr: float
    documents: int = 0
    """Documents that both answered and that were compared one by one; 0 where the rows were taken as independent."""
    benchmarks: int = 0
    """Benchmarks that were compared so."""

    @property
    def is_clear(self) -> bool:
        """Whether the two can be told apart, with 95 % confidence for this pair alone."""
        return self.value > Z * self.stderr + ROUNDING


class Tie(NamedTuple):
    """The tie that a row belongs to."""

    first: int
    """Rank of its best row."""
    last: int
    best: Standing
    difference: Difference | None
    """To the best row; None for that row itself."""

    @property
    def rows(self) -> int:
        return self.last - self.first + 1


Known = Callable[[Standing, Standing], Difference | None]
"""The difference of a better and a worse row where their documents were compared; None where they were not yet."""


def nothing_known(best: Standing, row: Standing) -> None:
    """For rankings of which there are no documents."""


def independent(best: Standing, row: Standing) -> Difference:
    """Their difference by the standard errors of both averages; one that has none counts as exact."""
    errors = best.average_stderr or 0.0, row.average_stderr or 0.0
    return Difference((best.average or 0.0) - (row.average or 0.0), (errors[0] ** 2 + errors[1] ** 2) ** 0.5)


class Ties:
    """The ties of one ranking, found from the top as far as somebody asks; safe to use from several threads."""

    def __init__(
        self,
        order: Sorted[Entry],
        rows: Sequence[Standing | None],
        known: Known = nothing_known,
        *,
        heads: Sequence[Entry] = (),
        walked: int = 0,
        later: Sequence[Entry] = (),
    ) -> None:
        """`order` has the ranked rows' slots, the best first.

        What is known from another ranking: `heads` of the first `walked` rows, and `later` ones: as soon as one of
        them is a head, so are those after it, since what follows a head depends on nothing before it.
        """
        self._order, self._rows, self._known = order, rows, known
        self._lock = threading.Lock()
        self._heads, self._walked, self._later = list(heads), walked, later
        self._guessed: list[Entry] = []
        """Rows that were compared with the head of their tie by what is not known yet."""

    def of(self, place: int) -> Tie:
        """The tie of the row at this place of the order, from 0."""
        entry = self._order[place]
        with self._lock:
            while self._walked < len(self._order) and not (self._heads and self._heads[-1] > entry):
                self._step(self._known)
            number = bisect_right(self._heads, entry)
            head = self._heads[number - 1]
            last = self._order.place(self._heads[number]) if number < len(self._heads) else self._walked
        best, row = self._row(head), self._row(entry)
        difference = None if entry == head else self._known(best, row) or independent(best, row)
        return Tie(self._order.place(head) + 1, last, best, difference)

    def changed(
        self, order: Sorted[Entry], rows: Sequence[Standing | None], touched: Collection[Entry] | None = None
    ) -> "Ties":
        """The ties where these entries came, went or are compared anew; without `touched`, those that were guessed.

        Ties above the first of them stay. Below the last one they mostly fall back into step with those there were.
        """
        with self._lock:
            touched = self._guessed if touched is None else [*touched, *self._guessed]
            if not touched:
                return Ties(order, rows, self._known, heads=self._heads, walked=self._walked, later=self._later)
            first, last = min(touched), max(touched)
            later = self._heads if self._walked == len(self._order) else self._later
            return Ties(
                order,
                rows,
                self._known,
                heads=self._heads[: bisect_left(self._heads, first)],
                walked=min(self._walked, order.place(first)),
                later=later[bisect_right(later, last) :],
            )

    def walk(self, known: Known) -> None:
        """Find every tie, asking this of pairs instead."""
        with self._lock:
            while self._walked < len(self._order):
                self._step(known)

    @property
    def is_settled(self) -> bool:
        """Whether all of them are found, and nothing was guessed."""
        return self._walked == len(self._order) and not self._guessed

    def _step(self, known: Known) -> None:
        entry = self._order[self._walked]
        self._walked += 1
        if self._heads:
            best, row = self._row(self._heads[-1]), self._row(entry)
            found = known(best, row)
            if found is None:
                self._guessed.append(entry)
                found = independent(best, row)
            if not found.is_clear:
                return
        self._heads.append(entry)
        place = bisect_left(self._later, entry)
        if place < len(self._later) and self._later[place] == entry:
            self._heads += self._later[place + 1 :]
            self._walked = len(self._order)

    def _row(self, entry: Entry) -> Standing:
        row = self._rows[entry[1]]
        assert row is not None
        return row
