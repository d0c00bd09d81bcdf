"""What a request shows of a table: which rows, in which order, with which columns, and how many there would be. Pure.

Nothing here reads more rows than a page shows, but for a search and for an average over chosen benchmarks.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

from orchestrator.board.columns import Column, columns_of, pick_columns
from orchestrator.board.request import SIZES, BoardRequest
from orchestrator.board.search import SEARCH_SECONDS, TookTooLong, parse_search
from orchestrator.board.standings import Standing
from orchestrator.board.table import Table, by_slot
from orchestrator.board.ties import Tie
from orchestrator.suites import Suite, meant

APART_ROWS = 20
"""Of those that are not ranked, how many a page shows unless it is asked for all."""


class Line(NamedTuple):
    """One row as it is shown."""

    row: Standing
    rank: int | None
    """On the whole board, or among what is shown where that was asked for."""
    tie: Tie | None
    """On the whole board; None for a row that is listed apart."""
    average: float | None
    stderr: float | None
    is_pinned: bool = False

    @property
    def places(self) -> tuple[int, int] | None:
        """The first and the last rank of its tie."""
        return (self.tie.first, self.tie.last) if self.tie else None


@dataclass(frozen=True)
class Counts:
    """How many ranked rows each further choice would leave, everything else being as it is."""

    type: dict[str, int] = field(default_factory=dict)
    precision: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    hide: dict[str, int] = field(default_factory=dict)
    """Rows of each kind that hiding takes away."""
    official: int = 0


@dataclass(frozen=True)
class Shown:
    """The answer to a request."""

    request: BoardRequest
    table: Table
    columns: tuple[Column, ...]
    known: dict[str, Column]
    """Every column there is."""
    lines: tuple[Line, ...]
    """Of this page, or all."""
    pinned: tuple[Line, ...]
    apart: tuple[Line, ...]
    """Rows without a rank."""
    fitting: int
    """Ranked rows that fit, on all pages."""
    apart_fitting: int
    pages: int
    counts: Counts
    problems: tuple[str, ...] = ()

    @property
    def suite(self) -> Suite:
        return self.table.suite

    @property
    def ranked(self) -> int:
        """Ranked rows of the whole board."""
        return self.table.ranked.bit_count()

    @property
    def page(self) -> int:
        return min(self.request.page, self.pages)

    @cached_property
    def benchmarks(self) -> tuple[str, ...]:
        """Names of the benchmarks among the columns."""
        return tuple(column.benchmark for column in self.columns if column.benchmark)

    @property
    def newest(self) -> datetime | None:
        return self.table.newest


class _Average(NamedTuple):
    """The average that is shown: a name to keep its order by, and what it is of one row."""

    name: str
    value: Callable[[Standing], float | None]
    stderr: Callable[[Standing], float | None]


def arrange(
    table: Table,
    request: BoardRequest,
    *,
    known: dict[str, Column] | None = None,
    page_rows: int = 0,
    apart_rows: int | None = None,
    everything: bool = False,
    search_seconds: float = SEARCH_SECONDS,
) -> Shown:
    """What the request shows. `page_rows`: of a page where it does not say, 0 for all; `everything`: of columns too."""
    known = known or columns_of(table.suite)
    columns = list(known.values()) if everything and not request.cols else pick_columns(known, request.cols)
    search = parse_search(request.q)
    problems = (*search.problems, *_unknown_columns(request, known))
    try:
        found = table.matching(search, seconds=search_seconds) if search.alternatives else -1
    except TookTooLong as error:
        found, problems = 0, (*problems, str(error))
    fits = _Filters(table, request, known, found)
    kept = fits.all() & table.ranked
    average = _average(table, columns, request)
    fitting = kept.bit_count()
    rows = request.rows or page_rows or max(1, fitting)
    pages = max(1, math.ceil(fitting / rows))
    first = (min(request.page, pages) - 1) * rows
    slots = list(islice(_ordered(table, request, known, average, kept), first, first + rows))
    page = [row for slot in slots if (row := table.rows[slot]) is not None]
    pinned = [row for one in request.pin if (row := table.row(one)) is not None]
    places = _dynamic(table, average, kept, {row.evaluation for row in page + pinned}) if request.rank else {}

    def line(row: Standing, *, is_pinned: bool = False) -> Line:
        rank = places.get(row.evaluation) if request.rank == "dynamic" else table.rank(row)
        return Line(row, rank, table.tie(row), average.value(row), average.stderr(row), is_pinned)

    apart = [row for _, row in table.those(fits.all() & table.apart)]
    apart.sort(key=lambda row: row.evaluation, reverse=True)
    return Shown(
        request=request,
        table=table,
        columns=tuple(columns),
        known=known,
        lines=tuple(line(row) for row in page),
        pinned=tuple(line(row, is_pinned=True) for row in pinned),
        apart=tuple(line(row) for row in apart[:apart_rows]),
        fitting=fitting,
        apart_fitting=len(apart),
        pages=pages,
        counts=fits.counts(),
        problems=problems,
    )


def _unknown_columns(request: BoardRequest, known: dict[str, Column]) -> Iterable[str]:
    """What is asked for and is no column, a sentence for sorting and one for showing."""
    there = f"Columns: {', '.join(known)}."
    if request.sort not in known and request.sort != BoardRequest.model_fields["sort"].default:
        near = meant(request.sort, known)
        yield f"There is no column '{request.sort}' to sort by; the rows stand by rank.{near} {there}"
    if absent := [name for name in request.cols if name not in known]:
        yield f"There is no column {', '.join(repr(name) for name in absent)} to show.{meant(absent[0], known)} {there}"


class _Filters:
    """The filters of a request as sets of bits, each apart, so that counts can leave one out."""

    def __init__(self, table: Table, request: BoardRequest, known: dict[str, Column], found: int) -> None:
        self.table, self.request, self.known = table, request, known
        everyone = table.ranked | table.apart
        self.parts: dict[str, int] = {"q": found & everyone if found >= 0 else everyone}
        if request.type:
            self.parts["type"] = _any(table.facet("type", one) for one in request.type)
        if request.precision:
            self.parts["precision"] = _any(table.facet("precision", one) for one in request.precision)
        if request.min is not None or request.max is not None:
            self.parts["size"] = self._sized(request.min, request.max)
        for kind in request.hide:
            self.parts[f"hide {kind}"] = everyone & ~table.facet("is", kind)
        if request.only:
            self.parts["only"] = table.facet("is", "official")

    def all(self, *, but: str = "") -> int:
        """Bits of the rows that pass every filter, one of them left out."""
        bits = self.table.ranked | self.table.apart
        for name, part in self.parts.items():
            if name != but:
                bits &= part
        return bits

    def counts(self) -> Counts:
        table, ranked = self.table, self.table.ranked

        def many(but: str, bits: int) -> int:
            return (self.all(but=but) & ranked & bits).bit_count()

        def each(name: str) -> dict[str, int]:
            return {value: many(name, bits) for (facet, value), bits in sorted(table.facets.items()) if facet == name}

        return Counts(
            type=each("type"),
            precision=each("precision"),
            sizes={name: many("size", table.facet("size", name)) for name in SIZES},
            hide={
                kind: many(f"hide {kind}", table.facet("is", kind))
                for kind in ("merged", "moe", "flagged", "off-hub", "imported")
            },
            official=many("only", table.facet("is", "official")),
        )

    def _sized(self, low: float | None, high: float | None) -> int:
        sizes = self.known["parameters"] if "parameters" in self.known else columns_of(self.table.suite)["parameters"]
        # Whole weights: 32.763876352 billion times a billion is a hair less than the model that has so many.
        return self.table.within(sizes, *(None if end is None else round(end * 1e9) for end in (low, high)))


def _any(sets: Iterable[int]) -> int:
    bits = 0
    for one in sets:
        bits |= one
    return bits


def _average(table: Table, columns: Sequence[Column], request: BoardRequest) -> _Average:
    """Over all benchmarks, or over those that are shown, normalised."""
    names = tuple(column.benchmark for column in columns if column.benchmark)
    everything = {benchmark.name for benchmark in table.suite.benchmarks}
    if request.avg != "visible" or not names or set(names) == everything:
        return _Average("average", lambda row: row.average, lambda row: row.average_stderr)

    def value(row: Standing) -> float | None:
        cells = row.cells
        try:
            return math.fsum([cells[name].value for name in names]) / len(names)
        except KeyError:
            return None

    def stderr(row: Standing) -> float | None:
        errors = [row.cells[name].stderr if name in row.cells else None for name in names]
        if None in errors:
            return None
        return math.hypot(*(error for error in errors if error is not None)) / len(names)

    # Of such orders only the last few are kept: there is one for every set of benchmarks.
    return _Average("average of " + "\n".join(sorted(names)), value, stderr)


def _ordered(
    table: Table, request: BoardRequest, known: dict[str, Column], average: _Average, kept: int
) -> Iterable[int]:
    """Slots of the rows in the wanted order; those without the value come last in either direction."""
    column = known.get(request.sort) or known.get("rank")
    by_average = column is None or column.kind == "rank"
    if by_average and average.name == "average":
        order, down = table.by_rank(), request.descending
    elif by_average or (column is not None and column.key == "average"):
        # By rank is from the best on, by average from the least on.
        order = table.in_order(average.name, average.value, keep=average.name == "average")
        down = request.descending != by_average
    elif column is not None and column.key == "places":
        order, down = table.by_rank(), request.descending
    else:
        assert column is not None
        name, value = _sort_key(column, raw=request.show == "raw")
        order, down = table.in_order(name, value), request.descending
    is_kept = by_slot(kept, len(table.rows))
    rest = kept.bit_count()
    for _, slot in reversed(order) if down else order:
        if is_kept[slot]:
            rest -= 1
            yield slot
    if rest:
        known_slots = {slot for _, slot in order}
        yield from (slot for slot, _ in table.those(kept) if slot not in known_slots)


def _sort_key(column: Column, *, raw: bool) -> tuple[str, Callable[[Standing], Any]]:
    if column.benchmark and raw:
        name = column.benchmark

        def raw_value(row: Standing) -> float | None:
            cell = row.cells.get(name)
            return None if cell is None else cell.value if cell.raw is None else cell.raw

        return f"raw {column.key}", raw_value
    if column.is_number:
        return column.key, column.value

    def text(row: Standing) -> Any:
        value = column.value(row)
        return None if value is None else str(value).casefold()

    return f"text {column.key}", text


def _dynamic(table: Table, average: _Average, kept: int, wanted: set[int]) -> dict[int, int]:
    """Places of the wanted evaluations among the rows that are kept, by the shown average; equal ones share a place."""
    slots = {slot: one for one in wanted if (slot := table.slot(one)) is not None}
    is_kept = by_slot(kept, len(table.rows))
    places: dict[int, int] = {}
    position, place, before = 0, 0, None
    for value, slot in reversed(table.in_order(average.name, average.value, keep=average.name == "average")):
        if not is_kept[slot]:
            continue
        position += 1
        if value != before:
            place, before = position, value
        if slot in slots:
            places[slots.pop(slot)] = place
            if not slots:
                break
    return places
