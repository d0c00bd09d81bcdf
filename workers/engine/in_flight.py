"""Which requests the engine holds at this moment, in a small file that outlives any death of the process.

The file is mapped into memory: a request costs half a microsecond and no system call, and what was written is still
there when the process is killed. Each request has 16 bytes, zeros where there is none. It never holds answers.
"""

import mmap
from collections.abc import Iterable
from pathlib import Path

NAME = "in-flight"

SLOT = 16
_EMPTY = bytes(SLOT)


class InFlight:
    """Made when an engine is up; replaces what an earlier one left."""

    def __init__(self, folder: Path, *, slots: int = 1024) -> None:
        self._file = (folder / NAME).open("w+b")
        self._held: dict[str, int] = {}
        self._free: list[int] = []
        self._size = 0
        self._grow(slots * SLOT)

    def add(self, requests: Iterable[str]) -> None:
        """Note requests, before the engine sees them."""
        for request in requests:
            if not self._free:
                self._grow(self._size)
            offset = self._held[request] = self._free.pop()
            self._map[offset : offset + SLOT] = bytes.fromhex(request)

    def remove(self, requests: Iterable[str]) -> None:
        """Note that the engine has answered these."""
        for request in requests:
            offset = self._held.pop(request, None)
            if offset is not None:
                self._map[offset : offset + SLOT] = _EMPTY
                self._free.append(offset)

    def _grow(self, more: int) -> None:
        # Written, not only reserved: a full disk is an error here and would be a signal in the mapped memory.
        self._file.seek(self._size)
        self._file.write(bytes(more))
        self._file.flush()
        self._free.extend(range(self._size, self._size + more, SLOT))
        self._size += more
        self._map = mmap.mmap(self._file.fileno(), self._size)


def left_in_flight(folder: Path) -> frozenset[str] | None:
    """What the engine of a stage that died held; None when no engine was up."""
    try:
        data = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return None
    slots = (data[start : start + SLOT] for start in range(0, len(data), SLOT))
    return frozenset(slot.hex() for slot in slots if slot != _EMPTY and len(slot) == SLOT)


def forget_in_flight(folder: Path) -> None:
    """Remove what an earlier engine left, before a stage is started in the same folder."""
    (folder / NAME).unlink(missing_ok=True)
