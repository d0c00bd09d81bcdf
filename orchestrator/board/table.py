"""A board in memory that is asked quickly: each row has a bit, each filter a set of bits, each column a sorted list.

Immutable to its readers: a change gives a new table that shares what did not change. One changed row costs a few
insertions, however large the board is, and no row is read again for it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import replace
from datetime import datetime
from itertools import count
from typing import Any, NamedTuple

from orchestrator.board.chunks import Chunked, Sorted
from orchestrator.board.columns import Column
from orchestrator.board.request import SIZES
from orchestrator.board.search import SEARCH_SECONDS, Search
from orchestrator.board.standings import Standing, apart_because
from orchestrator.board.ties import Entry, Known, Tie, Ties, nothing_known
from orchestrator.suites import Suite

Facet = tuple[str, str]
BY_RANK = "rank"
ONE = ord("1")
DIGITS = bytes.maketrans(b"01", b"\x00\x01")
MOST_ORDERS = 40
"""Kept by one table, each with a number for every row and a place to mend at every change; others are sorted anew."""
MOST_MADE_UP = 2
"""Orders of the same kind that readers make up, by averages over chosen benchmarks: pages of one follow each other."""
MOST_SEARCHES = 40
"""Kept by one table, each with a bit for every row."""
MENDED_CHANGES = 20
"""Changed rows for which searches are mended; with more they are made anew, as an expression may take long."""


class _Order(NamedTuple):
    """Rows as one column sorts them."""

    key: Callable[[Standing], Any]
    apart: bool
    """Whether rows without a rank are in it."""
    entries: Sorted[Entry]

    def entry(self, row: Standing | None, slot: int) -> list[Entry]:
        """What a row stands under; empty where it is not in it."""
        if row is None or (row.apart_because and not self.apart):
            return []
        value = _known(self.key(row))
        return [] if value is None else [(value, slot)]


class _Move(NamedTuple):
    """What becomes of one slot."""

    slot: int
    before: Standing | None
    after: Standing | None


class Table:
    """The rows of one suite version that one kind of reader may see."""

    def __init__(
        self,
        suite: Suite,
        rows: Iterable[Standing] = (),
        *,
        official: frozenset[str] = frozenset(),
        known: Known = nothing_known,
    ) -> None:
        """`known`: what is known of pairs of its rows, for their ties."""
        self.suite = suite
        self.official = official
        self._known = known
        self._ties: Ties | None = None
        placed = [self._placed(row) for row in rows]
        self.rows: Chunked[Standing | None] = Chunked(placed)
        """By slot: a row keeps its slot for as long as it is on the table."""
        self._slots: Sorted[Entry] = Sorted((row.evaluation, slot) for slot, row in enumerate(placed))
        """By evaluation."""
        self.newest = _newest(placed)
        """When the latest of its evaluations ended."""
        self._orders: dict[str, _Order] = {}
        self._made_up: tuple[str, ...] = ()
        """Names of kept orders that readers made up, the last one last."""
        self._searches: dict[str, tuple[Search, int]] = {}
        sets: dict[Facet, bytearray] = {}
        ranked, apart = (bytearray((len(placed) >> 3) + 1) for _ in range(2))
        for slot, row in enumerate(placed):
            bit = 1 << (slot & 7)
            (apart if row.apart_because else ranked)[slot >> 3] |= bit
            for facet in self._facets_of(row):
                sets.setdefault(facet, bytearray((len(placed) >> 3) + 1))[slot >> 3] |= bit
        self.ranked = int.from_bytes(ranked, "little")
        """Bits of the rows that have a rank."""
        self.apart = int.from_bytes(apart, "little")
        """Bits of those that have none, and say why."""
        self.facets = {facet: int.from_bytes(bits, "little") for facet, bits in sets.items()}

    def __len__(self) -> int:
        return (self.ranked | self.apart).bit_count()

    def changed(self, changes: Mapping[int, Standing | None]) -> "Table":
        """A table with these evaluations' rows as they are now; None takes one off."""
        moves = self._moves(changes)
        table = copy(self)
        table.rows = self.rows.replaced({move.slot: move.after for move in moves})
        table._slots = self._slots.changed(
            ((move.before.evaluation, move.slot) for move in moves if move.before is not None),
            ((move.after.evaluation, move.slot) for move in moves if move.after is not None),
        )
        table.facets = dict(self.facets)
        for move in moves:
            table._set_bits(move)
        table._orders = {name: _moved(order, moves) for name, order in list(self._orders.items())}
        table._searches = {}
        if len(changes) <= MENDED_CHANGES:
            table._searches = {text: _searched(*kept, moves) for text, kept in list(self._searches.items())}
        if any(move.before is not None and move.before.ended_at == self.newest for move in moves):
            table.newest = _newest(table.rows)
        else:
            come = _newest(move.after for move in moves)
            table.newest = max((one for one in (self.newest, come) if one is not None), default=None)
        if table._ties is not None:
            rows = ((row, move.slot) for move in moves for row in (move.before, move.after))
            touched = [entry for row, slot in rows for entry in _entry(row, slot)]
            table._ties = table._ties.changed(table.by_rank(), table.rows, touched)
        return table

    def row(self, evaluation: int) -> Standing | None:
        slot = self.slot(evaluation)
        return None if slot is None else self.rows[slot]

    def facet(self, name: str, value: str) -> int:
        return self.facets.get((name, value), 0)

    def in_order(
        self, name: str, key: Callable[[Standing], Any], *, apart: bool = False, keep: bool = True
    ) -> Sorted[Entry]:
        """Sorted `(key, slot)` of the ranked rows, with `apart` of the others too, that have a key.

        It is kept up to date; where `keep` is false only the last few are, for what readers make up, of which there is
        no end.
        """
        found = self._orders.get(name)
        if found is None:
            empty = _Order(key, apart, Sorted())
            found = empty._replace(
                entries=Sorted(entry for slot, row in enumerate(self.rows) for entry in empty.entry(row, slot))
            )
            if not keep:
                for other in self._made_up[: -MOST_MADE_UP + 1]:
                    self._orders.pop(other, None)
                self._made_up = (*self._made_up[-MOST_MADE_UP + 1 :], name)
            if name == BY_RANK or not keep or len(self._orders) < MOST_ORDERS + MOST_MADE_UP:
                self._orders[name] = found
        return found.entries

    def those(self, bits: int) -> Iterable[tuple[int, Standing]]:
        """Slots and rows of these bits, by slot."""
        held = bits.to_bytes((bits.bit_length() >> 3) + 1, "little")
        for base, byte in enumerate(held):
            while byte:
                low = byte & -byte
                slot = (base << 3) + low.bit_length() - 1
                byte ^= low
                row = self.rows[slot]
                if row is not None:
                    yield slot, row

    def matching(self, search: Search, *, seconds: float = SEARCH_SECONDS) -> int:
        """Bits of the rows that fit; kept, since pages of one search follow each other.

        Raises:
            TookTooLong: after so much computing time.
        """
        kept = self._searches.get(search.text)
        if kept is not None:
            return kept[1]
        found = to_bits(search.find(self.rows, seconds=seconds), len(self.rows))
        if len(self._searches) >= MOST_SEARCHES:
            self._searches = {}
        self._searches[search.text] = search, found
        return found

    @property
    def kept_orders(self) -> frozenset[str]:
        return frozenset(self._orders)

    def within(self, column: Column, low: float | None, high: float | None) -> int:
        """Bits of the rows whose number in this column is known and lies between these, both included."""
        order = self.in_order(f"any {column.key}", column.value, apart=True)
        first = 0 if low is None else order.place((low,))
        last = len(order) if high is None else order.place((high, len(self.rows)))
        return to_bits((slot for _, slot in order[first:last]), len(self.rows))

    def by_rank(self) -> Sorted[Entry]:
        return self.in_order(BY_RANK, _rank_key)

    def rank(self, row: Standing) -> int | None:
        """1 is the best; equal averages share a rank. None for a row that is listed apart."""
        if row.apart_because or row.average is None:
            return None
        return self.by_rank().place(((-row.average,),)) + 1

    def tie(self, row: Standing) -> Tie | None:
        """The rows that it cannot be told apart from, with the best of them; None for one that is listed apart."""
        slot = self.slot(row.evaluation)
        entry = [] if slot is None else _entry(self.rows[slot], slot)
        return self.ties.of(self.by_rank().place(entry[0])) if entry else None

    def following(self, row: Standing, many: int) -> list[Standing]:
        """A ranked row and those after it, so many in all."""
        slot = self.slot(row.evaluation)
        assert slot is not None
        order = self.by_rank()
        place = order.place(_entry(row, slot)[0])
        return [one for _, slot in order[place : place + many] if (one := self.rows[slot]) is not None]

    @property
    def ties(self) -> Ties:
        """All of them, by what is known of pairs at this moment."""
        if self._ties is None:
            self._ties = Ties(self.by_rank(), self.rows, self._known)
        return self._ties

    def settle_ties(self, compare: Known) -> None:
        """Find every tie by comparing what is not known yet; what was known before stays."""
        settled = self.ties.changed(self.by_rank(), self.rows)
        settled.walk(compare)
        self._ties = settled

    def slot(self, evaluation: int) -> int | None:
        """Of the row of this evaluation, where it is on the table."""
        place = self._slots.place((evaluation,))
        found, slot = self._slots[place] if place < len(self._slots) else (None, 0)
        return slot if found == evaluation else None

    def _moves(self, changes: Mapping[int, Standing | None]) -> list[_Move]:
        moves = []
        fresh = self._free_slots()
        for evaluation, row in changes.items():
            slot = self.slot(evaluation)
            if slot is None and row is None:
                continue
            before = None if slot is None else self.rows[slot]
            after = None if row is None else self._placed(row)
            moves.append(_Move(next(fresh) if slot is None else slot, before, after))
        return moves

    def _free_slots(self) -> Iterator[int]:
        """Those that rows have left, then those past the end."""
        free = ~(self.ranked | self.apart) & ((1 << len(self.rows)) - 1)
        while free:
            low = free & -free
            yield low.bit_length() - 1
            free ^= low
        yield from count(len(self.rows))

    def _placed(self, row: Standing) -> Standing:
        """It, with why it has no rank on this table."""
        because = apart_because(self.suite, row)
        return row if because == row.apart_because else replace(row, apart_because=because)

    def _set_bits(self, move: _Move) -> None:
        bit = 1 << move.slot
        if move.before is not None:
            self.ranked &= ~bit
            self.apart &= ~bit
            for facet in self._facets_of(move.before):
                self.facets[facet] &= ~bit
                if not self.facets[facet]:
                    del self.facets[facet]  # no choice is left of what nobody has any more
        if move.after is not None:
            if move.after.apart_because:
                self.apart |= bit
            else:
                self.ranked |= bit
            for facet in self._facets_of(move.after):
                self.facets[facet] = self.facets.get(facet, 0) | bit

    def _facets_of(self, row: Standing) -> Iterable[Facet]:
        yield "type", row.model_type
        yield "precision", row.precision
        for name in sizes_of(row.parameters):
            yield "size", name
        if row.model_type == "merge":
            yield "is", "merged"
        if row.is_mixture:
            yield "is", "moe"
        if row.flags:
            yield "is", "flagged"
        if not row.on_hub:
            yield "is", "off-hub"
        if row.imported_from:
            yield "is", "imported"
        if self.is_official(row):
            yield "is", "official"

    def is_official(self, row: Standing) -> bool:
        """Whether it is an official provider's model; of an imported row only its own board says whose it is."""
        organisation, slash, _ = row.model.partition("/")
        return bool(slash) and not row.imported_from and organisation.casefold() in self.official


def sizes_of(parameters: int | None) -> Iterable[str]:
    """The ready-made size ranges that hold so many weights; both ends belong to a range."""
    if parameters is None:
        return
    for name, (low, high, _) in SIZES.items():
        if (low is None or parameters >= low * 1e9) and (high is None or parameters <= high * 1e9):
            yield name


def to_bits(slots: Iterable[int], size: int) -> int:
    """The set of these slots, each less than `size`, as the bits of one number."""
    digits = bytearray(b"0") * (size + 1)
    for slot in slots:
        digits[size - slot] = ONE
    return int(digits, 2)


def by_slot(bits: int, size: int) -> bytes:
    """For each slot less than `size` whether it is in the set: 1 or 0. Quicker to ask than the number, slot by slot."""
    return f"{bits:0{size}b}".encode().translate(DIGITS)[::-1]


def _known(value: Any) -> Any:
    """None for what cannot be ordered."""
    return None if value != value else value


def _moved(order: _Order, moves: Iterable[_Move]) -> _Order:
    gone = [entry for move in moves for entry in order.entry(move.before, move.slot)]
    come = [entry for move in moves for entry in order.entry(move.after, move.slot)]
    return order._replace(entries=order.entries.changed(gone, come))


def _searched(search: Search, found: int, moves: Iterable[_Move]) -> tuple[Search, int]:
    for move in moves:
        bit = 1 << move.slot
        found = found | bit if move.after is not None and search.fits(move.after) else found & ~bit
    return search, found


def _newest(rows: Iterable[Standing | None]) -> datetime | None:
    return max((row.ended_at for row in rows if row is not None and row.ended_at is not None), default=None)


def _entry(row: Standing | None, slot: int) -> list[Entry]:
    """What a ranked row stands under in the order by rank; empty for any other."""
    return [] if row is None or row.apart_because else [(_rank_key(row), slot)]


def _rank_key(row: Standing) -> Any:
    return -(row.average or 0.0), row.model.casefold(), row.evaluation
