"""How a stage program talks to whoever started it: JSON events on stdout, log on stderr, exit code 0 or 1.

    {"event": "phase", "phase": "loading weights"}
    {"event": "progress", "done": 120, "total": 600}
    {"event": "sealed", "file": "000003-….jsonl.zst", "count": 57, "benchmarks_done": ["ARC"]}     infer only
    {"event": "completed", "done": {…}, "stays": false}     a Done record of orchestrator.wire
    {"event": "failed", "failure": "dataset", "sentence": "…", "lasting": false}

The program reads its work from a file and writes only under its output folder. It ends when its standard input
closes while `EVALYARD_SUPERVISED=1`: no stage outlives its supervisor. `EVALYARD_MEMORY_BYTES` limits its memory. With
`EVALYARD_STAY=1` a program that keeps something for the next work (an engine) says so when it has completed one, and
stays; each next work is a line on standard input:

    {"work": "/…/out.work.json", "out": "/…/out"}
"""

import errno
import json
import os
import queue
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

from pydantic import BaseModel

from orchestrator.wire import FailureKind
from workers.sheets import DamagedSheet

WorkT = TypeVar("WorkT", bound=BaseModel)


DISK_TROUBLE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENOTDIR, errno.ENOTCONN}
)
"""What a full, failing or unmounted disk says. A file that is not there is no such sign: it may be the model's."""


class StageFailure(Exception):
    """A stage that cannot go on, with the class of the failure and a sentence with the next step.

    `lasting`: the same work would fail again on this host, however small its footprint.
    """

    def __init__(self, kind: FailureKind, sentence: str, *, lasting: bool = False) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence
        self.lasting = lasting


_events: IO[str] | None = None


def emit(event: str, **fields: Any) -> None:
    """Tell the supervisor; a closed pipe is not an error of the stage."""
    line = json.dumps({"event": event, **fields})
    with suppress(BrokenPipeError):
        print(line, file=_events or sys.stdout, flush=True)


def run(
    work_type: type[WorkT],
    main: Callable[[WorkT, Path], BaseModel],
    *,
    stays: Callable[[], bool] = lambda: False,
    idle: Callable[[], None] = lambda: None,
) -> None:
    """Run a stage program: read `WORK.json OUT_DIR` from the command line, report, exit 0 or 1.

    `main` returns the Done record, or raises StageFailure. Any other exception is reported as a failure of the
    harness (prepare, score) or the engine (infer), with its traceback on stderr. `stays` is asked after each work;
    before it waits for the next, the program is told that it is `idle`.
    """
    global _events
    if len(sys.argv) != 3:
        module = main.__module__ if main.__module__ != "__main__" else Path(sys.argv[0]).stem
        sys.exit(f"usage: python -m {module} WORK.json OUT_DIR   (WORK.json: a {work_type.__name__})")
    # Libraries print to stdout; keep it for events and send everything else to stderr.
    _events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    with suppress(OSError):
        # Where memory runs out the kernel ends a stage, and nothing of those to whom the host belongs.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    orders: queue.Queue[bytes] = queue.Queue()
    supervised = os.environ.get("EVALYARD_SUPERVISED") == "1"
    if supervised:
        threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    if limit := os.environ.get("EVALYARD_MEMORY_BYTES"):
        resource.setrlimit(resource.RLIMIT_AS, (int(limit), int(limit)))
    may_stay = supervised and os.environ.get("EVALYARD_STAY") == "1"
    path, out = Path(sys.argv[1]), Path(sys.argv[2])
    while True:
        done = _do(work_type, main, path, out)
        staying = may_stay and stays()
        emit("completed", done=done.model_dump(mode="json"), stays=staying)
        if not staying:
            _leave(0)
        del done
        idle()
        following = json.loads(orders.get())
        path, out = Path(following["work"]), Path(following["out"])


def _do(work_type: type[WorkT], main: Callable[[WorkT, Path], BaseModel], path: Path, out: Path) -> BaseModel:
    """One work to its end; a failure ends the program."""
    work = work_type.model_validate_json(path.read_bytes())
    out.mkdir(parents=True, exist_ok=True)
    try:
        return main(work, out)
    except StageFailure as failure:
        traceback.print_exc()
        end_failed(failure)
    except DamagedSheet as damaged:
        traceback.print_exc()
        end_failed(StageFailure(FailureKind.SHEET, str(damaged)))
    except Exception as error:
        traceback.print_exc()
        if (trouble := disk_trouble(error)) is not None:
            end_failed(trouble)
        kind = FailureKind.ENGINE if "Infer" in work_type.__name__ else FailureKind.HARNESS
        end_failed(StageFailure(kind, f"{type(error).__name__}: {error}"[:500]))


def disk_trouble(error: BaseException | None) -> StageFailure | None:
    """What a disk or the store failed with, however libraries have wrapped it; None for another exception."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
            where = f" at {error.filename}" if error.filename else ""
            return StageFailure(
                FailureKind.STORAGE,
                f"The worker's disk, or the artifact store mounted there, failed{where}: {os.strerror(error.errno)}. "
                "Make room or mend it; it is tried again.",
            )
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def end_failed(failure: StageFailure) -> NoReturn:
    """Say that the stage failed, and end it now, from whichever thread."""
    emit("failed", failure=failure.kind, sentence=failure.sentence, lasting=failure.lasting)
    _leave(1)


def _leave(code: int) -> NoReturn:
    """End now: an engine's own threads and processes must not hold the stage open."""
    sys.stderr.flush()
    if _events is not None:
        _events.flush()
    os._exit(code)


def _listen(orders: queue.Queue[bytes]) -> None:
    """Pass on what the supervisor orders; when it is gone, end."""
    # Not by way of sys.stdin: this thread would hold its lock all the time, and a process that a library forks from
    # here closes sys.stdin first and would wait for a lock whose owner it does not have.
    read = b""
    while part := os.read(0, 1 << 16):
        *lines, read = (read + part).split(b"\n")
        for line in lines:
            orders.put(line)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)
