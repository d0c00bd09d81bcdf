"""Which requests are asked for, which are sealed, and which benchmarks are thereby complete. Pure bookkeeping."""

from collections.abc import Iterable, Sequence


class Ledger:
    """Counts each distinct request once for every benchmark that asks for it."""

    def __init__(self, benchmarks: Sequence[str]) -> None:
        self._names = tuple(benchmarks)
        self._open: dict[str, int] = {}
        """Request hash to a bit for each benchmark that waits for it."""
        self._left = [0] * len(self._names)
        self.total = 0
        self.sealed = 0

    def ask(self, benchmark: int, requests: Iterable[str]) -> None:
        """Note that the benchmark at this position needs these requests."""
        bit = 1 << benchmark
        for request in requests:
            before = self._open.get(request, 0)
            self.total += before == 0
            if not before & bit:
                self._open[request] = before | bit
                self._left[benchmark] += 1

    def seal(self, requests: Iterable[str]) -> int:
        """Note that these requests are answered and sealed; returns how many of them were still open."""
        count = 0
        for request in requests:
            bits = self._open.pop(request, 0)
            count += bits != 0
            while bits:
                low = bits & -bits
                self._left[low.bit_length() - 1] -= 1
                bits ^= low
        self.sealed += count
        return count

    def is_open(self, request: str) -> bool:
        return request in self._open

    def waiting(self, request: str) -> list[str]:
        """The benchmarks that wait for this request."""
        bits = self._open.get(request, 0)
        return [name for position, name in enumerate(self._names) if bits >> position & 1]

    @property
    def open(self) -> int:
        return len(self._open)

    @property
    def benchmarks_done(self) -> list[str]:
        """Benchmarks whose every request is sealed, in the order they were given."""
        return [name for name, left in zip(self._names, self._left, strict=True) if left == 0]
