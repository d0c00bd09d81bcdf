"""Which requests are asked for, which are taken and which are sealed, and which benchmarks are thereby complete.

Pure bookkeeping. What the stage remembers of a sheet is here, about a hundred bytes a request.
"""

from collections.abc import Iterable, Sequence

TAKEN = 1
"""Bit of a request that is on its way to the engine; the bits above it stand for the benchmarks that wait for it."""


class Ledger:
    """Counts each distinct request once for every benchmark that asks for it."""

    def __init__(self, benchmarks: Sequence[str]) -> None:
        self._names = tuple(benchmarks)
        self._open: dict[int, int] = {}
        """Request hash as a number (half the bytes of its text) to its bits."""
        self._bits: dict[int, int] = {}
        """One object for each combination of bits."""
        self._left = [0] * len(self._names)
        self.total = 0
        self.sealed = 0

    def ask(self, benchmark: int, requests: Iterable[str]) -> None:
        """Note that the benchmark at this position needs these requests."""
        bit = TAKEN << 1 + benchmark
        for request in requests:
            key = int(request, 16)
            before = self._open.get(key, 0)
            self.total += before == 0
            if not before & bit:
                self._set(key, before | bit)
                self._left[benchmark] += 1

    def take(self, request: str) -> bool:
        """Note that an open request is on its way to the engine; False when it was taken before or is not open."""
        key = int(request, 16)
        bits = self._open.get(key, TAKEN)
        if bits & TAKEN:
            return False
        self._set(key, bits | TAKEN)
        return True

    def seal(self, requests: Iterable[str]) -> int:
        """Note that these requests are answered and sealed; returns how many of them were still open."""
        count = 0
        for request in requests:
            bits = self._open.pop(int(request, 16), 0)
            count += bits != 0
            for position in _positions(bits):
                self._left[position] -= 1
        self.sealed += count
        return count

    def is_open(self, request: str) -> bool:
        return int(request, 16) in self._open

    def waiting(self, request: str) -> list[str]:
        """The benchmarks that wait for this request."""
        return [self._names[position] for position in _positions(self._open.get(int(request, 16), 0))]

    @property
    def open(self) -> int:
        return len(self._open)

    @property
    def benchmarks_done(self) -> list[str]:
        """Benchmarks whose every request is sealed, in the order they were given."""
        return [name for name, left in zip(self._names, self._left, strict=True) if left == 0]

    def _set(self, key: int, bits: int) -> None:
        self._open[key] = self._bits.setdefault(bits, bits)


def _positions(bits: int) -> list[int]:
    """The benchmarks that stand in the bits, by position."""
    positions = []
    bits >>= 1
    while bits:
        low = bits & -bits
        positions.append(low.bit_length() - 1)
        bits ^= low
    return positions
