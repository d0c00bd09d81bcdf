"""Programs that mean harm, run as generated ones are: none passes, none reaches what it must not, none lives on."""

import os
import struct
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator.wire import FailureKind
from tests.services import wait_until
from workers.harness import forbidden_calls, sandbox, sandbox_view
from workers.stage import StageFailure

SHORT = 0.05
"""A second in all."""


def run(program: str, *, seconds: float = 5.0) -> str:
    return sandbox.run(textwrap.dedent(program), seconds=seconds).said


@pytest.fixture(autouse=True)
def _works(code_sandbox: None) -> None:
    """Every test of this file needs it."""


def test_a_program_passes_when_its_tests_ran_to_their_end() -> None:
    assert run("def add(a, b): return a + b\nassert add(2, 3) == 5") == "passed"
    assert run("def add(a, b): return a * b\nassert add(2, 3) == 5") == "failed: AssertionError"
    assert run("def add(a, b)\n    return a + b") == "failed: SyntaxError: expected ':' (<string>, line 1)"
    assert run("import numpy, ctypes, sqlite3, ssl, unittest; assert numpy.eye(2).sum() == 2") == "passed"


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.exit(0)",
        "raise SystemExit(0)",
        "import os; os._exit(0)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import atexit, os; atexit.register(os._exit, 0); raise SystemExit",
        "import os, sys; os.execv(sys.executable, [sys.executable, '-c', 'pass'])",
        "import os; os.closerange(0, 100)",
        "import builtins, os; os.write = os._exit = builtins.type = builtins.str = lambda *_: None; assert False",
        "import builtins; builtins.AssertionError = type('Fine', (SystemExit,), {}); assert False",
        "class Loud(Exception):\n    def __str__(self): import os; os._exit(0)\nraise Loud",
        "import sys; sys.settrace(lambda *_: sys.exit(0)); (lambda: None)()",
    ],
)  # fmt: skip
def test_whoever_ends_before_the_tests_have_does_not_pass(program: str) -> None:
    found = run(program + ("" if "closerange" in program else "\nassert False"))
    assert found.startswith("failed: ")


def test_a_program_finds_the_same_descriptors_however_many_files_its_worker_has_open() -> None:
    with ExitStack() as opened:
        for _ in range(200):
            opened.enter_context(Path(os.devnull).open())
        assert run("import os; os.closerange(0, 100)").startswith("failed: ")


def test_no_word_that_a_program_can_guess_or_find_makes_it_pass() -> None:
    # To all descriptors, what the runner writes and what it might be waiting for.
    assert run("""
        import os
        for descriptor in range(64):
            for word in (b"started\\n", b"passed", b"passed\\n", b"0" * 32):
                try:
                    os.set_blocking(descriptor, False)
                    os.write(descriptor, word)
                except OSError:
                    pass
        os._exit(0)
    """).startswith("failed: ")
    # The word itself is in no frame, object, argument, variable or file before the program has ended.
    assert (
        run("""
        import gc, os, re, sys
        frame, found = sys._getframe(), []
        while frame:
            found += map(repr, frame.f_locals.values())
            frame = frame.f_back
        found += [one for one in gc.get_objects() if isinstance(one, (str, bytes))]
        found += sys.argv + list(os.environ.values())
        assert not os.path.exists("/proc")
        raise ValueError([one for one in found if re.search("[0-9a-f]{32}", str(one))])
    """)
        == "failed: ValueError: []"
    )


def test_what_lies_in_the_programs_own_process_is_its_to_forge() -> None:
    """HumanEval's own limit, and stated as such: tests share a process with what they test."""
    assert run("class Yes:\n    def __eq__(self, other): return True\nassert Yes() == 5") == "passed"


def test_the_host_its_files_and_other_programs_are_out_of_reach(tmp_path: Path) -> None:
    secret = tmp_path / "answers.jsonl"
    secret.write_text("42")
    paths = [secret, Path("/etc/passwd"), Path.home(), Path(__file__), Path(sandbox.__file__), Path("/proc/1/environ")]
    for path in paths:
        assert run(f"import os; assert not os.path.lexists({str(path)!r})") == "passed", path
    assert run(f"import os; os.symlink({str(secret)!r}, 'link'); open('link')").startswith("failed: FileNotFoundError")
    os.environ["EVALYARD_TEST_SECRET"] = "42"
    try:
        assert run("import os; assert not [name for name in os.environ if 'EVALYARD' in name]") == "passed"
    finally:
        del os.environ["EVALYARD_TEST_SECRET"]
    assert run("open('left', 'w').write('for the next')") == "passed"
    assert run("import os; assert os.listdir('.') == []") == "passed"
    for file in ("/guest.py", "/python/lib/own.py", "/usr/lib/own.so", "/own", "/dev/own", "/packages/numpy/own.py"):
        assert run(f"open({file!r}, 'a')").startswith("failed: OSError: [Errno 30] Read-only file system"), file


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import socket; socket.create_connection(('127.0.0.1', 80))", "failed: PermissionError"),
        ("import socket; socket.socket(socket.AF_UNIX)", "failed: PermissionError"),
        ("import os\nwhile True: os.fork()", "failed: PermissionError"),
        ("import subprocess; subprocess.run(['/python/bin/python3'])", "failed: PermissionError"),
        ("import threading\nwhile True: threading.Thread(target=input).start()", "failed: RuntimeError: can't start"),
        ("hoard = []\nwhile True: hoard.append(bytearray(1 << 26))", "failed: MemoryError"),
        ("open('big', 'wb').write(bytes(1 << 24))", "failed: OSError: [Errno 27] File too large"),
        ("for n in range(9): open(str(n), 'wb').write(bytes(1 << 22))", "failed: OSError: [Errno 28] No space left"),
        ("hoard = [open('/dev/null') for _ in range(99)]", "failed: OSError: [Errno 24] Too many open files"),
        ("import os; os.memfd_create('hoard')", "failed: PermissionError"),
        ("import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0", "failed: AssertionError"),
        ("import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "failed: ValueError"),
        ("def deep(n): return deep(n + 1)\ndeep(0)", "failed: RecursionError"),
        ("eval('(' * 100000)", "failed: "),
        ("while True: pass", "timed out"),
        ("while True: print('x' * 9999, flush=True)", "timed out"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", "timed out"),
        ("import signal\nwhile True: signal.sigtimedwait([], 0.01)", "timed out"),
        ("import os\nfor n in range(9**9): os.mkdir('x' * 200 + str(n))", "failed: it made more than 4096 files"),
        ("for n in range(9**9): open(str(n), 'w').close()", "failed: it made more than 4096 files"),
        ("import fcntl, os; fcntl.fcntl(os.pipe()[0], fcntl.F_SETPIPE_SZ, 1 << 20)", "failed: PermissionError"),
        ("import os; os.setxattr('.', 'user.hoard', b'x')", "failed: PermissionError"),
        ("import os; os.nice(19)", "failed: PermissionError"),
        ("import fcntl; fcntl.flock(open('/guest.py'), fcntl.LOCK_EX)", "failed: PermissionError"),
        ("input()", "failed: EOFError"),
    ],
)  # fmt: skip
def test_time_memory_processes_files_and_network_are_limited(program: str, said: str) -> None:
    assert run(program, seconds=SHORT if said == "timed out" else 5.0).startswith(said)


def test_time_is_what_a_program_computes_and_not_what_a_busy_host_makes_it_wait() -> None:
    computing = "import time\nstart = time.process_time()\nwhile time.process_time() - start < {}: pass"
    assert run("import time; time.sleep(0.5)", seconds=0.5) == "passed"
    assert run(computing.format(0.5), seconds=0.5) == "passed"
    assert run(computing.format(5), seconds=0.5) == "timed out"


def test_a_program_that_only_waits_is_ended_long_before_its_time_in_all_whatever_it_does_to_hide() -> None:
    hiding = """
        import ctypes, fcntl, os, sys, time
        for descriptor in range(64):
            try:
                fcntl.fcntl(descriptor, fcntl.F_SETOWN, 1)
            except OSError:
                pass
        ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE
    """
    again = "os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(600)'])"
    for then in ("time.sleep(600)", again):
        begun = time.monotonic()
        assert run(textwrap.dedent(hiding) + then, seconds=0.5) == "timed out"
        assert time.monotonic() - begun < 0.5 * sandbox.WALL_SHARE


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_denies_each_call_of_its_list_and_a_larger_pipe_and_nothing_else(machine: str) -> None:
    """The kernel's machine in a few lines: what it would answer to each number."""
    rows = list(struct.iter_unpack("=HBBI", forbidden_calls.filter_for(machine) or b""))
    column = list(forbidden_calls.AUDIT).index(machine)
    forbidden = {row[column] for row in forbidden_calls.FORBIDDEN.values()} - {None}

    def answer(number: int, second: int = 0) -> int:
        seen = {0: number, 4: forbidden_calls.AUDIT[machine], 24: second}
        loaded = place = 0
        while True:
            code, if_so, if_not, value = rows[place]
            if code == forbidden_calls.RETURN:
                return int(value)
            if code == forbidden_calls.LOAD_WORD:
                loaded, jump = seen[value], 0
            else:
                jump = if_so if (loaded == value if code == forbidden_calls.JUMP_EQUAL else loaded >= value) else if_not
            place += 1 + jump

    denied = {number for number in range(600) if answer(number) == forbidden_calls.DENY}
    assert denied == forbidden
    assert {answer(number) for number in set(range(600)) - forbidden} == {forbidden_calls.ALLOW}
    assert answer(forbidden_calls.X32 + 1) == forbidden_calls.DENY
    assert answer(forbidden_calls.FCNTL[column], forbidden_calls.F_SETPIPE_SZ) == forbidden_calls.DENY
    assert answer(forbidden_calls.FCNTL[column], forbidden_calls.F_SETPIPE_SZ + 1) == forbidden_calls.ALLOW


def test_a_sandbox_that_cannot_begin_leaves_no_descriptor_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a full disk, of which a worker gives back one job after the other."""
    run("pass")
    open_now = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr("tempfile.tempdir", "/no/such/folder")
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            run("pass")
    assert len(list(Path("/proc/self/fd").iterdir())) == open_now


def test_nothing_of_a_program_outlives_it_and_nothing_of_the_runner_is_its_to_kill() -> None:
    assert (
        run("""
        import os, signal
        for target in (os.getppid(), 1, -1):
            try:
                os.kill(target, signal.SIGKILL)
            except OSError:
                pass
        assert False
    """)
        == "failed: AssertionError"
    )
    assert run("pass") == "passed"
    # Its supervisor is killed while it runs. A program is known by its limit, which no other has.
    source = "from workers.harness import sandbox; sandbox.run('import time; time.sleep(600)', seconds=617)"
    runner = subprocess.Popen([sys.executable, "-c", source], cwd=Path(__file__).parents[3])
    wait_until(lambda: any("[1234, 1235]" in line for line in _commands()), "the program runs")
    runner.kill()
    runner.wait()
    wait_until(lambda: not any("[1234, 1235]" in line for line in _commands()), "the program is gone")


def test_a_host_without_bubblewrap_runs_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        from workers.harness import sandbox
        from workers.stage import StageFailure
        try:
            sandbox.run("open('ran', 'w')", seconds=1)
        except StageFailure as failure:
            print(failure.kind, failure.sentence)
    """)
    root = str(Path(__file__).parents[3])
    environment = {"PATH": str(tmp_path), "PYTHONPATH": root}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert found.startswith(f"{FailureKind.SANDBOX.value} This benchmark runs code that the model generates.")
    assert "bubblewrap (bwrap) is not installed. Install bubblewrap on this harness worker's host" in found
    assert list(tmp_path.iterdir()) == []


def test_where_the_kernel_refuses_a_sandbox_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for cached in (sandbox.trouble, sandbox_view.command):
        cached.cache_clear()
    try:
        with pytest.raises(StageFailure, match="No permissions to create new namespace"):
            run("pass")
    finally:
        monkeypatch.undo()
        for cached in (sandbox.trouble, sandbox_view.command):
            cached.cache_clear()


def test_a_machine_whose_system_calls_are_not_known_has_no_sandbox() -> None:
    assert forbidden_calls.filter_for("s390x") is None
    assert len(forbidden_calls.filter_for("x86_64") or b"") == 8 * (len(forbidden_calls.FORBIDDEN) + 10)


def _commands() -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found
