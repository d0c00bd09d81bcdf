"""A bound on the memory that reading a stranger's board may take: some hundred bytes of Parquet can unpack to anything.

What a file says of its own size is the stranger's word. The operating system's limit is not.
"""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import Refused

MOST_BYTES = 8 << 30
"""Or half of the machine's, where that is less: the hub goes on working beside it."""
STATM = Path("/proc/self/statm")
DATA_PAGES = 5
"""The field of `statm` that counts what the limit counts."""


@contextmanager
def at_most(most_bytes: int | None = None) -> Iterator[None]:
    """Let this process take so much more memory within, and no more. For programs that do one thing at a time.

    Raises:
        Refused: it was not enough.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    page = os.sysconf("SC_PAGE_SIZE")
    most = most_bytes or min(MOST_BYTES, os.sysconf("SC_PHYS_PAGES") * page // 2)
    used = int(STATM.read_text().split()[DATA_PAGES]) * page if STATM.exists() else 0
    known = [limit for limit in (soft, hard, used + most) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(known), hard))
    try:
        yield
    except MemoryError as error:
        raise Refused(
            f"Reading this source takes more than {most >> 20} MiB of memory, which no board does. Nothing was taken."
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
