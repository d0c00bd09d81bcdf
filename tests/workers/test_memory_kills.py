"""Whose processes the kernel's counter counts, from the files of every kind of control group and from a real kill."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.memory_kills import MemoryKills, memory_kills

GROUPS = Path("/sys/fs/cgroup")


@pytest.fixture
def kernel(tmp_path: Path) -> "Kernel":
    return Kernel(tmp_path)


class Kernel:
    """The files that are read, with whatever content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("proc/vmstat", "nr_free_pages 12\noom_kill 31\noom_kill_other 7\n")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def kills(self) -> MemoryKills:
        return memory_kills(proc=self.folder / "proc", groups=self.folder / "groups")


def test_without_a_group_the_host_s_counter_is_taken_and_said_to_be_of_strangers_too(kernel: Kernel) -> None:
    assert kernel.kills() == (31, False)
    assert "The kernel's log says which process it was." in kernel.kills().sentence("infer")
    kernel.write("proc/self/cgroup", "0::/no/controller\n")
    assert kernel.kills() == (31, False)


def test_a_kernel_that_tells_nothing_counts_as_no_kill(tmp_path: Path) -> None:
    assert memory_kills(proc=tmp_path, groups=tmp_path) == (0, False)


@pytest.mark.parametrize(
    ("own", "file"),
    [
        ("0::/slurm/job_7/step_0", "slurm/job_7/step_0/memory.events"),
        ("0::/slurm/job_7/step_0", "slurm/job_7/memory.events"),  # the nearest group with the controller
        ("0::/", "memory.events"),  # a container's own view
        ("0::/../elsewhere", "memory.events"),
        ("4:memory:/slurm/job_7", "memory/slurm/job_7/memory.oom_control"),
        ("9:cpu,memory:/job_7\n0::/", "memory/job_7/memory.oom_control"),
        ("4:memory:/docker/4f1e", "memory/memory.oom_control"),  # the path is the host's, the mount the container's
    ],
)
def test_the_group_s_own_counter_is_taken_where_there_is_one(kernel: Kernel, own: str, file: str) -> None:
    kernel.write("proc/self/cgroup", f"8:pids:/other\n{own}\n")
    kernel.write(f"groups/{file}", "low 0\nhigh 4\nunder_oom 0\noom 9\noom_kill 2\noom_group_kill 5\n")
    assert kernel.kills() == (2, True)
    assert kernel.kills().sentence("infer") == "The infer process was killed by the kernel, for want of memory."


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with little memory."""
    controlled = GROUPS / "memory" if (GROUPS / "memory").is_dir() else GROUPS
    made = controlled / f"evalyard-test-{os.getpid()}"
    limit = "memory.limit_in_bytes" if controlled.name == "memory" else "memory.max"
    try:
        made.mkdir()
        (made / limit).write_text(str(64 << 20))
    except OSError as error:
        made.rmdir() if made.is_dir() else None
        pytest.skip(f"NO REAL KILL FOR WANT OF MEMORY: no control group can be made here ({error})")
    yield made
    made.rmdir()


SUPERVISOR = f"""
import subprocess, sys
from pathlib import Path
from workers.memory_kills import memory_kills
(Path(sys.argv[1]) / "cgroup.procs").write_text("0")
before = memory_kills()
ended = subprocess.run([sys.executable, "-c", "b'x' * {256 << 20}"]).returncode
after = memory_kills()
print(ended, after.number - before.number, after.is_own)
"""


def test_a_real_kill_by_the_limit_of_the_group_is_counted_as_its_own(group: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", SUPERVISOR, str(group)], capture_output=True, text=True, check=False)
    assert ran.stdout.split() == [str(-signal.SIGKILL), "1", "True"], ran.stderr
