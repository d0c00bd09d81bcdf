"""Long lists that change by giving a new one, which shares every chunk but those that changed.

A board has many readers and a table for each moment: with plain lists each change would copy all of them, and the
collector of garbage would walk through every copy.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, islice
from operator import itemgetter
from typing import Any, Self, TypeVar, overload

CHUNK = 256
"""Values of a chunk that is made anew; it is parted when it has twice as many."""

T = TypeVar("T")


class Chunked(Sequence[T]):
    """A list in chunks. Immutable."""

    def __init__(self, values: Iterable[T] = ()) -> None:
        self._chunks = _parted(list(values))
        self._starts = [0, *accumulate(map(len, self._chunks))]
        """Place of each chunk's first value; last, how many values there are."""

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> list[T]: ...
    def __getitem__(self, place: int | slice) -> T | list[T]:
        if isinstance(place, slice):
            first, end, step = place.indices(len(self))
            number = self._chunk_at(first)
            start = self._starts[number]
            return list(
                islice(chain.from_iterable(self._chunks[number:]), first - start, max(first, end) - start, step)
            )
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place %= len(self)
        number = self._chunk_at(place)
        return self._chunks[number][place - self._starts[number]]

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self._chunks)

    def __reversed__(self) -> Iterator[T]:
        return chain.from_iterable(map(reversed, reversed(self._chunks)))

    def replaced(self, values: Mapping[int, T]) -> Self:
        """One with these values at these places; those past the end follow it, in the order of their places."""
        chunks = list(self._chunks)
        added = []
        for place, value in sorted(values.items()):
            if place >= len(self):
                added.append(value)
                continue
            number = self._chunk_at(place)
            if chunks[number] is self._chunks[number]:
                chunks[number] = list(chunks[number])
            chunks[number][place - self._starts[number]] = value
        if added:
            last = chunks.pop() if chunks else []
            chunks += _parted([*last, *added])
        return self._with(chunks)

    def _chunk_at(self, place: int) -> int:
        return bisect_right(self._starts, place) - 1

    def _with(self, chunks: list[list[T]]) -> Self:
        new = type(self)()
        new._chunks, new._starts = chunks, [0, *accumulate(map(len, chunks))]
        return new


class Sorted(Chunked[T]):
    """A sorted list in chunks, of values that can be compared, no two of them equal. Immutable."""

    def __init__(self, values: Iterable[Any] = ()) -> None:
        super().__init__(sorted(values))

    def place(self, value: Any) -> int:
        """How many are less than this, so the place where it is or would be."""
        if not self._chunks:
            return 0
        number = self._chunk_of(value)
        return self._starts[number] + bisect_left(self._chunks[number], value)

    def changed(self, gone: Iterable[T], come: Iterable[Any]) -> Self:
        """One without the first and with the second.

        Raises:
            AssertionError: something that is to go is not there.
        """
        touched: dict[int, tuple[list[T], list[Any]]] = {}
        for number, values in ((0, gone), (1, come)):
            for value in values:
                touched.setdefault(self._chunk_of(value), ([], []))[number].append(value)
        chunks = list(self._chunks)
        for number in sorted(touched, reverse=True):
            chunk: list[Any] = list(chunks[number]) if chunks else []
            for value in touched[number][0]:
                place = bisect_left(chunk, value)
                assert chunk[place : place + 1] == [value]
                del chunk[place]
            for value in touched[number][1]:
                insort(chunk, value)
            chunks[number : number + 1] = _parted(chunk)
        return self._with(chunks)

    def _chunk_of(self, value: Any) -> int:
        """Number of the chunk where it is or would be; 0 where there is none."""
        # Past every end it belongs to the last one.
        return bisect_left(self._chunks, value, hi=max(0, len(self._chunks) - 1), key=itemgetter(-1))


def _parted(values: list[T]) -> list[list[T]]:
    """As chunks, none of them empty."""
    if not values:
        return []
    if len(values) < 2 * CHUNK:
        return [values]
    return [values[first : first + CHUNK] for first in range(0, len(values), CHUNK)]
