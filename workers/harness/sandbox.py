"""Runs a program that a model generated, with its tests, in a sandbox of its own (bubblewrap), and says how it ended.

Never outside one: where bubblewrap or the kernel's user namespaces are missing, nothing is run at all. A program sees
Python, its standard library and NumPy, read-only, and an empty folder; no network, no other process, no file of the
host's, of a data set or of another program. It has passed only if it ended by itself and without an exception: what it
returns, prints or exits with counts for nothing.
"""

import functools
import json
import os
import platform
import secrets
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack
from typing import NamedTuple

from orchestrator.wire import FailureKind
from workers.harness import forbidden_calls
from workers.harness.sandbox_view import FOLDER_BYTES, SandboxBroken, command, python
from workers.harness.sandbox_watch import STEP_SECONDS, TIMED_OUT, Watch
from workers.stage import StageFailure

MEMORY_BYTES = 1 << 30
FILE_BYTES = FOLDER_BYTES // 2
"""Of one file; all files of a program together may have twice as much, the size of its folder."""
OPEN_FILES = 64

CPU_SHARE = 2.0
"""A program may compute for twice the seconds that `code_eval` lets pass: what passes there on an idle machine passes
here on one that is busy or half as fast."""
WAITING_SHARE = 2.0
"""And wait by its own will for as long: asleep, not kept waiting by a busy host."""
WALL_SHARE = 20.0
"""In all, however busy the host is."""

PASSED = "passed"

ADVICE = (
    "Install bubblewrap on this harness worker's host (Debian, Ubuntu: apt-get install bubblewrap) and let it make "
    "user namespaces: docs/generated-code.md."
)

STARTED = b"started\n"


class Ended(NamedTuple):
    """How a program and its tests ended."""

    said: str
    """`passed`, `timed out`, or `failed: ` and why, for people."""

    @property
    def passed(self) -> bool:
        return self.said == PASSED


def run(program: str, *, seconds: float) -> Ended:
    """Run a program to its end; `seconds` is what `code_eval` calls its timeout.

    Raises:
        StageFailure: SANDBOX where this host has none; HARNESS where one that worked does not start any more.
    """
    require()
    broken = ""
    for _ in range(3):
        try:
            found, code = _run(program, seconds=seconds)
        except SandboxBroken as error:
            broken = str(error)
            continue
        if code == 128 + signal.SIGKILL and not found.passed:
            # By the kernel for want of memory on the host, or by itself: a second time it was itself.
            found = _run(program, seconds=seconds)[0]
        return found
    raise StageFailure(FailureKind.HARNESS, f"The sandbox for generated code does not start any more: {broken}")


def require() -> None:
    """Refuse to go on where generated code cannot be run in a sandbox.

    Raises:
        StageFailure: SANDBOX, with what is missing and what to do.
    """
    if (why := trouble()) is not None:
        raise StageFailure(FailureKind.SANDBOX, f"This benchmark runs code that the model generates. {why}")


@functools.cache
def trouble() -> str | None:
    """Why there is no sandbox on this host, after a trial of it; None where it works. Asked once in a process."""
    try:
        found, _ = _run(TRIAL, seconds=10.0)
    except (SandboxBroken, OSError) as error:
        return f"The sandbox for it does not work on this host: {error} {ADVICE}"
    if not found.passed:
        return f"The sandbox for it does not hold on this host ({found.said}). {ADVICE}"
    return None


TRIAL = """
import os, socket, threading
assert sorted(os.listdir("/room")) == [] and os.getcwd() == "/room"
more = set(os.listdir("/")) - {"dev", "guest.py", "lib", "lib64", "packages", "python", "usr", "room"}
assert not more, f"/{min(more)} is there"
assert set(os.environ) <= {"HOME", "TMPDIR", "LANG", "PWD", "PYTHONHASHSEED", "LD_LIBRARY_PATH",
                           "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "LC_CTYPE"}, "the environment is not empty"
def refused(call, *arguments):
    try:
        call(*arguments)
    except (OSError, RuntimeError, MemoryError):
        return True
    return False
assert refused(os.fork), "it may start processes"
assert refused(threading.Thread(target=print).start), "it may start threads"
assert refused(socket.socket), "it has a network"
assert refused(os.mkdir, "/here") and refused(open, os.__file__, "a"), "it may write outside its folder"
assert refused(bytearray, 1 << 34), "its memory has no limit"
open("/room/file", "w").close()
import numpy
"""


def _run(program: str, *, seconds: float) -> tuple[Ended, int]:
    """How it ended, and bubblewrap's exit code.

    Raises:
        SandboxBroken: it did not come to run it.
    """
    secret = secrets.token_hex(16).encode()
    cpu = max(1, round(seconds * CPU_SHARE))
    limits = {
        # Python knows no handler for SIGXCPU, which ends it; a program that makes one is killed a second later.
        "RLIMIT_CPU": (cpu, cpu + 1),
        "RLIMIT_AS": (MEMORY_BYTES, MEMORY_BYTES),
        "RLIMIT_FSIZE": (FILE_BYTES, FILE_BYTES),
        "RLIMIT_NOFILE": (OPEN_FILES, OPEN_FILES),
        "RLIMIT_NPROC": (1, 1),
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_MSGQUEUE": (0, 0),
        "RLIMIT_SIGPENDING": (OPEN_FILES, OPEN_FILES),
    }
    with ExitStack() as opened, tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as errors:
        source.write(program.encode("utf-8", "surrogatepass"))
        source.seek(0)
        calls, word = _pipe(_filter(), opened), _pipe(secret, opened)
        hears, tells = os.pipe()
        opened.callback(os.close, hears)
        opened.callback(os.close, tells)
        process = subprocess.Popen(
            [*command(), "--seccomp", str(calls), "--", *python(), str(word), str(tells), json.dumps(limits)],
            stdin=source,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={},
            pass_fds=(word, tells, calls),
        )
        watch = Watch(source.fileno(), waiting_seconds=seconds * WAITING_SHARE)
        ended = _wait(process, watch, wall_seconds=seconds * WALL_SHARE)
        code = process.returncode
        os.set_blocking(hears, False)
        try:
            said = os.read(hears, 1 << 16)
        except BlockingIOError:
            said = b""
        if not said.startswith(STARTED):
            errors.seek(0)
            why = errors.read(2000).decode("utf-8", "replace").strip().splitlines()
            raise SandboxBroken((why[-1] if why else f"bubblewrap ended with {code}.")[:300])
    said = said[len(STARTED) :]
    return Ended(ended) if ended is not None and said != secret else _ended(said, secret, code), code


def _wait(process: "subprocess.Popen[bytes]", watch: Watch, *, wall_seconds: float) -> str | None:
    """Wait for the sandbox's end; how its program ended where it had to be ended from here."""
    deadline = time.monotonic() + wall_seconds
    ended = None
    try:
        while ended is None:
            try:
                process.wait(max(0.0, min(STEP_SECONDS, deadline - time.monotonic())))
                return None
            except subprocess.TimeoutExpired:
                ended = TIMED_OUT if time.monotonic() >= deadline else watch.look()
        return ended
    finally:
        process.kill()  # and with it everything inside: --die-with-parent, and the end of its first process
        process.wait()


def _ended(said: bytes, secret: bytes, code: int) -> Ended:
    if said == secret:
        return Ended(PASSED)
    if code == 128 + signal.SIGXCPU:
        return Ended(TIMED_OUT)
    if code > 128:
        names = {one.value: one.name for one in signal.Signals}
        return Ended(f"failed: it was ended by {names.get(code - 128, f'signal {code - 128}')}")
    # The program may have written this.
    text = "".join(letter if letter.isprintable() else " " for letter in said.decode("ascii", "replace")).strip()
    if code == 1 and text:
        return Ended(f"failed: {text[:300]}")
    return Ended("failed: it ended before its tests had")


@functools.cache
def _filter() -> bytes:
    found = forbidden_calls.filter_for(platform.machine())
    if found is None:
        raise SandboxBroken(f"No list of system calls is known for {platform.machine()}.")
    return found


def _pipe(content: bytes, opened: ExitStack) -> int:
    """A descriptor from which `content` can be read once."""
    outgoing, incoming = os.pipe()
    opened.callback(os.close, outgoing)
    os.write(incoming, content)
    os.close(incoming)
    return outgoing
