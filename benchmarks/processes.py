"""Processes of a benchmark: started, measured and ended; an embedded broker; a bare Celery worker in this process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator import valkey


@contextmanager
def running(*arguments: str, environment: dict[str, str], log: Path | None = None) -> Iterator[int]:
    """A Python program of this environment, ended at the end of the block; its process id."""
    out = log.open("wb") if log else subprocess.DEVNULL
    process = subprocess.Popen([sys.executable, *arguments], env=os.environ | environment, stdout=out, stderr=out)
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def embedded_broker(folder: Path) -> Iterator[str]:
    """A Valkey of its own; its address."""
    made = valkey.prepare(folder)
    process = subprocess.Popen(made.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        if not made.wait(seconds=30, alive=lambda: process.poll() is None):
            raise SystemExit("The embedded broker did not start.")
        yield made.url
    finally:
        process.terminate()
        process.wait()


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def consume(app: Any, queues: list[str]) -> None:
    """Run the app's tasks as they come, until SIGTERM."""
    worker = app.Worker(
        pool="threads",
        concurrency=4,
        queues=queues,
        hostname="benchmark@evalyard",
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
