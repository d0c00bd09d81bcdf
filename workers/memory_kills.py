"""How many processes the kernel has killed for want of memory: in this worker's control group, else on the host.

The control group's counter is of this worker and its stages alone, whichever limit was hit: a job's, a container's or
the host's. Where the kernel keeps none, the host's counter is all there is, and it counts the kills of strangers.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class MemoryKills(NamedTuple):
    number: int
    """Since the control group was made, or the host was started."""
    is_own: bool
    """Whether strangers' processes are left out."""

    def sentence(self, stage: str) -> str:
        """What is said of a stage that SIGKILL ended while this counter rose."""
        if self.is_own:
            return f"The {stage} process was killed by the kernel, for want of memory."
        return (
            f"The {stage} process was killed (SIGKILL) on a host whose kernel killed for want of memory: it is "
            "taken to have been killed for that. The kernel's log says which process it was."
        )


def memory_kills(*, proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> MemoryKills:
    """The counter as it is now; 0 where the kernel tells nothing."""
    for file in _own_counters(proc, groups):
        number = _number(file)
        if number is not None:
            return MemoryKills(number, is_own=True)
    return MemoryKills(_number(proc / "vmstat") or 0, is_own=False)


def _own_counters(proc: Path, groups: Path) -> Iterator[Path]:
    """Where the counter may be. A process counts for the nearest group above it that has the memory controller."""
    with suppress(OSError):
        for line in (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            # Of a container's own view the path is `/`, or one that is not mounted: then the mount itself is the group.
            own = Path(path.lstrip("/"))
            if not controllers:
                yield from (groups / above / "memory.events" for above in (own, *own.parents))
            elif "memory" in controllers.split(","):
                yield groups / "memory" / own / "memory.oom_control"
                yield groups / "memory" / "memory.oom_control"


def _number(file: Path) -> int | None:
    with suppress(OSError, ValueError):
        for line in file.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return None
