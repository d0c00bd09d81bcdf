"""Processes that `evalyard up` keeps alive: started in a session of their own, restarted when they die, always buried.

None outlives its parent: an undertaker, a process of a few megabytes, holds a pipe to the parent and ends every group
when the pipe closes, however the parent died. Nothing here knows what the processes do.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import EvalyardError

log = logging.getLogger(__name__)

QUICK_SECONDS = 15.0
"""A process that dies sooner after its start than this died quickly."""

MOST_QUICK_DEATHS = 5
LONGEST_PAUSE_SECONDS = 8.0
LOG_TAIL_LINES = 20
LOG_BYTES = 10 << 20
"""A log larger than this is set aside (`.1`) at the next start of the system."""


class ServiceGivenUp(EvalyardError):
    """A process died again and again; the sentence ends with the end of its log."""


@dataclass
class Service:
    """One process to keep alive, and what is known about its deaths."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    log: Path
    grace_seconds: float = 5.0
    """How long it may take to end after SIGTERM."""
    rank: int = 0
    """Those of the highest rank are stopped first, all at once; they need the ones below to say goodbye."""
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    quick_deaths: int = 0
    again_at: float | None = None
    """When it is to be started again, while it is dead."""


class Services:
    """Keeps processes alive until `stop`; every call comes from one thread."""

    def __init__(self, *, say: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._now = now
        self._services: list[Service] = []
        self._undertaker = subprocess.Popen(
            [sys.executable, "-S", "-P", "-c", _UNDERTAKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start(self, service: Service) -> None:
        """Start a process and keep it alive from now on."""
        service.log.parent.mkdir(parents=True, exist_ok=True)
        if service.log.exists() and service.log.stat().st_size > LOG_BYTES:
            service.log.replace(service.log.with_name(service.log.name + ".1"))
        self._services.append(service)
        self._launch(service)

    def look(self) -> None:
        """Start again whatever died, after a pause that grows with every quick death.

        Raises:
            ServiceGivenUp: it died quickly too often.
        """
        now = self._now()
        for service in self._services:
            assert service.process is not None
            code = service.process.poll()
            if code is None:
                continue
            if service.again_at is None:
                self._note_death(service, code, now)
            elif now >= service.again_at:
                self._launch(service)

    def alive(self, name: str) -> bool:
        service = next(service for service in self._services if service.name == name)
        return service.process is not None and service.process.poll() is None

    def stop(self, *, hurry: Callable[[], bool] = lambda: False) -> None:
        """End every process, rank by rank, each within its grace; what is left of every group is killed.

        `hurry` cuts the graces short: a second Ctrl-C.
        """
        for rank in sorted({service.rank for service in self._services}, reverse=True):
            ending = [service for service in self._services if service.rank == rank]
            for service in ending:
                assert service.process is not None
                if service.process.poll() is None:
                    service.process.terminate()
            asked_at = self._now()
            for service in ending:
                self._await_end(service, asked_at + service.grace_seconds, hurry)
                self._bury(service)
        self._services.clear()
        assert self._undertaker.stdin is not None
        with suppress(BrokenPipeError):
            self._undertaker.stdin.close()
        self._undertaker.wait()

    def _await_end(self, service: Service, deadline: float, hurry: Callable[[], bool]) -> None:
        assert service.process is not None
        while service.process.poll() is None and self._now() < deadline and not hurry():
            with suppress(subprocess.TimeoutExpired):
                service.process.wait(0.1)

    def _launch(self, service: Service) -> None:
        with service.log.open("ab") as out:
            service.process = subprocess.Popen(
                list(service.command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(service.environment),
                start_new_session=True,
            )
        service.started_at = self._now()
        service.again_at = None
        self._tell_undertaker(f"+{service.process.pid}")

    def _note_death(self, service: Service, code: int, now: float) -> None:
        self._bury(service)
        service.quick_deaths = service.quick_deaths + 1 if now - service.started_at < QUICK_SECONDS else 0
        if service.quick_deaths >= MOST_QUICK_DEATHS:
            raise ServiceGivenUp(
                f"The {service.name} process died {service.quick_deaths} times in a row, at last {ending(code)}. "
                f"The end of {service.log}:\n{log_tail(service.log)}"
            )
        pause = min(0.5 * 2**service.quick_deaths, LONGEST_PAUSE_SECONDS)
        service.again_at = now + pause
        self._say(
            f"The {service.name} process ended {ending(code)}; starting it again in {pause:g} s. Its log: {service.log}"
        )

    def _bury(self, service: Service) -> None:
        """Kill what is left of the group; a child of the dead process could hold a port or a GPU."""
        assert service.process is not None
        with suppress(ProcessLookupError):
            os.killpg(service.process.pid, signal.SIGKILL)
        service.process.wait()
        self._tell_undertaker(f"-{service.process.pid}")

    def _tell_undertaker(self, word: str) -> None:
        assert self._undertaker.stdin is not None
        with suppress(BrokenPipeError):
            self._undertaker.stdin.write(word.encode() + b"\n")
            self._undertaker.stdin.flush()


def ending(code: int) -> str:
    """How a process ended, after "ended": its code, or the signal that killed it, negative as `subprocess` has it."""
    if code == -signal.SIGKILL:
        return "by SIGKILL (where nobody sent it, the kernel did for want of memory: see `dmesg`)"
    if code < 0:
        return f"by {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"by signal {-code}"
    return f"with code {code}"


def log_tail(path: Path) -> str:
    """The last lines of a log."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "(there is no log)"
    return "\n".join(f"    {line}" for line in lines[-LOG_TAIL_LINES:]) or "    (empty)"


_UNDERTAKER = """
import os, signal, sys, time
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
groups = []
for word in iter(sys.stdin.readline, ""):
    group = int(word[1:])
    groups.append(group) if word[0] == "+" else groups.remove(group)
def send(number):
    for group in reversed(groups):
        try:
            os.killpg(group, number)
        except OSError:
            pass
if groups:
    send(signal.SIGTERM)
    time.sleep(2.0)
    send(signal.SIGKILL)
"""
"""Reads `+group` and `-group` lines; when they end, ends the groups that are left."""
