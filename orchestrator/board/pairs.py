"""What is known of pairs of rows that answered the same documents: the standard error of their averages' difference.

Only pairs that a tie asks for are compared (`orchestrator.board.ties`), each once; what is not known yet is taken by
the standard errors of both. Reads numbers of evaluations without asking who may see them: rows are given by tables of
those who may.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec
import sqlalchemy
from sqlmodel import Session, col

from orchestrator.board.standings import Standing
from orchestrator.board.ties import Difference, independent
from orchestrator.results.outcomes import Stratum, read_strata, spread_of_difference
from orchestrator.tables import Outcome

MOST_PAIRS = 200_000
"""Remembered: for a board of ten thousand rows, seen by several kinds of readers."""
ROWS_AT_ONCE = 50
"""Evaluations whose documents are read at a time."""
MOST_READ = 100
"""Evaluations whose documents are in memory: 3 KB each for 24,000 rights and wrongs, 100 KB for as many numbers."""


Following = Callable[[Standing, int], Sequence[Standing]]
"""A row and those that follow it in the ranking, so many in all: they are likely to be asked for next."""


class _Pair(NamedTuple):
    """Two rows with the averages that were compared: a row that was scored anew is another one."""

    best: int
    best_average: float | None
    row: int
    average: float | None


class Pairs:
    """Differences by pair; safe to use from several threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[_Pair, Difference] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, best: Standing, row: Standing) -> Difference | None:
        return self._known.get(_pair(best, row))

    def learn(self, best: Standing, row: Standing, difference: Difference) -> None:
        with self._lock:
            self._known[_pair(best, row)] = difference
            if len(self._known) > MOST_PAIRS:
                self._known.popitem(last=False)


class Comparing:
    """Compares pairs in a session, reading documents of the rows that follow, too."""

    def __init__(self, session: Session, pairs: Pairs, following: Following) -> None:
        self._session, self._pairs, self._following = session, pairs, following
        self._read: OrderedDict[int, dict[str, tuple[Stratum, ...]]] = OrderedDict()

    def compare(self, best: Standing, row: Standing) -> Difference:
        found = self._pairs.known(best, row)
        if found is None:
            ours, theirs = self._strata(best, row)
            found = paired_difference(best, row, ours, theirs)
            self._pairs.learn(best, row, found)
        return found

    def _strata(
        self, best: Standing, row: Standing
    ) -> tuple[dict[str, tuple[Stratum, ...]], dict[str, tuple[Stratum, ...]]]:
        if best.evaluation not in self._read:
            self._fetch([best.evaluation])
        self._read.move_to_end(best.evaluation)
        if row.evaluation not in self._read:
            rows = self._following(row, ROWS_AT_ONCE)[1:]
            # The row itself whatever is known by now: another thread may have learned of it since it was asked for.
            unknown = [one.evaluation for one in rows if self._pairs.known(best, one) is None]
            self._fetch([row.evaluation, *unknown])
        return self._read[best.evaluation], self._read[row.evaluation]

    def _fetch(self, evaluations: Collection[int]) -> None:
        found: dict[int, dict[str, tuple[Stratum, ...]]] = {one: {} for one in evaluations}
        # As text: parsing a board's worth of them by the column's own type takes longer than comparing them.
        columns = (
            col(Outcome.evaluation_id),
            col(Outcome.benchmark),
            sqlalchemy.cast(col(Outcome.strata), sqlalchemy.Text),
        )
        chosen = sqlalchemy.select(*columns).where(col(Outcome.evaluation_id).in_(evaluations))
        for evaluation, benchmark, strata in self._session.execute(chosen):
            found[evaluation][benchmark] = read_strata(msgspec.json.decode(strata))
        self._read.update(found)
        while len(self._read) > MOST_READ:
            self._read.popitem(last=False)


def paired_difference(
    best: Standing,
    row: Standing,
    ours: dict[str, tuple[Stratum, ...]],
    theirs: dict[str, tuple[Stratum, ...]],
) -> Difference:
    """Of two rows' averages over the same benchmarks, with what each document of a benchmark came to.

    The average is the plain mean of B benchmarks, which are independent: its variance is the sum of theirs over B². A
    benchmark of which both have the same documents gives the variance of its paired difference, another one the sum of
    both rows' squared standard errors, where one that has none counts as exact.
    """
    value = (best.average or 0.0) - (row.average or 0.0)
    variance, documents, benchmarks = 0.0, 0, 0
    for name, cell in best.cells.items():
        spread = spread_of_difference(ours.get(name, ()), theirs.get(name, ()))
        if spread is None:
            errors: Iterable[float | None] = (cell.stderr, row.cells[name].stderr if name in row.cells else None)
            variance += sum(error * error for error in errors if error)
        else:
            variance += spread.variance
            documents += spread.documents
            benchmarks += 1
    if not benchmarks:
        return independent(best, row)
    return Difference(value, variance**0.5 / len(best.cells), documents, benchmarks)


def _pair(best: Standing, row: Standing) -> _Pair:
    return _Pair(best.evaluation, best.average, row.evaluation, row.average)
