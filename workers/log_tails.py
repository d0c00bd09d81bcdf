"""The end of a stage's log, as much of it as goes with a report."""

import os
from typing import IO

LOG_TAIL_BYTES = 4096


def tail_of(log: IO[bytes], start: int) -> str:
    """The last few kilobytes of what was written from `start` on, from the beginning of a line."""
    size = size_of(log)
    # Not by seeking: the place in the file is shared with the stage, and several threads may ask.
    data = os.pread(log.fileno(), LOG_TAIL_BYTES, max(start, size - LOG_TAIL_BYTES))
    if size - start > LOG_TAIL_BYTES:
        data = data.partition(b"\n")[2]
    return data.decode(errors="replace")


def size_of(log: IO[bytes]) -> int:
    return os.fstat(log.fileno()).st_size
