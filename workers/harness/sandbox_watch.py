"""Looks at a program in its sandbox from outside, and says when it is to be ended. Never touches it.

The kernel counts what a program computes, but neither what it waits nor the files that it makes.
"""

import fcntl
import os
from pathlib import Path

STEP_SECONDS = 0.1
"""Between two looks."""

MOST_FILES = 4096
"""Files, folders and links: each takes about a kilobyte of the kernel's memory, which no other limit counts."""

TIMED_OUT = "timed out"
TOO_MANY_FILES = f"failed: it made more than {MOST_FILES} files"

WAITING = frozenset("STt")
"""States of proc(5) in which a program waits because it wants to: asleep, or stopped. One that the host keeps waiting
is `R`, for a processor, or `D`, for a disk."""


class Watch:
    """Of one program. `source` is the file that `guest` reads it from, by which it also says which process it is."""

    def __init__(self, source: int, *, waiting_seconds: float) -> None:
        self._source = source
        self._left = waiting_seconds
        self._process = 0

    def look(self) -> str | None:
        """How the program ended if it is ended now; None where it may go on. To be called each `STEP_SECONDS`.

        A look that comes late counts no more than one in time: on a busy host this errs for the program.
        """
        self._process = self._process or fcntl.fcntl(self._source, fcntl.F_GETOWN)
        if self._process <= 0:
            return None
        folder = Path("/proc", str(self._process))
        try:
            room = os.statvfs(folder / "root" / "room")
            state = (folder / "stat").read_bytes().rpartition(b") ")[2][:1].decode()
        except OSError:  # it has just ended
            return None
        if room.f_files - room.f_ffree > MOST_FILES:
            return TOO_MANY_FILES
        if state in WAITING:
            self._left -= STEP_SECONDS
        return TIMED_OUT if self._left <= 0 else None
