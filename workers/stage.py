"""How a stage program talks to whoever started it: JSON events on stdout, log on stderr, exit code 0 or 1.

    {"event": "phase", "phase": "loading weights"}
    {"event": "progress", "done": 120, "total": 600}
    {"event": "sealed", "file": "000003-….jsonl.zst", "count": 57, "benchmarks_done": ["ARC"]}     infer only
    {"event": "completed", "done": {…}}                     a Done record of orchestrator.wire
    {"event": "failed", "failure": "dataset", "sentence": "…", "lasting": false}

The program reads its work from a file and writes only under its output folder. It ends when its standard input
closes while `EVALYARD_SUPERVISED=1`: no stage outlives its supervisor. `EVALYARD_MEMORY_BYTES` limits its memory.
"""

import json
import os
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


def run(work_type: type[WorkT], main: Callable[[WorkT, Path], BaseModel]) -> None:
    """Run a stage program: read `WORK.json OUT_DIR` from the command line, report, exit 0 or 1.

    `main` returns the Done record, or raises StageFailure. Any other exception is reported as a failure of the
    harness (prepare, score) or the engine (infer), with its traceback on stderr.
    """
    global _events
    if len(sys.argv) != 3:
        module = main.__module__ if main.__module__ != "__main__" else Path(sys.argv[0]).stem
        sys.exit(f"usage: python -m {module} WORK.json OUT_DIR   (WORK.json: a {work_type.__name__})")
    # Libraries print to stdout; keep it for events and send everything else to stderr.
    _events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    if os.environ.get("EVALYARD_SUPERVISED") == "1":
        threading.Thread(target=_end_with_supervisor, daemon=True).start()
    if limit := os.environ.get("EVALYARD_MEMORY_BYTES"):
        resource.setrlimit(resource.RLIMIT_AS, (int(limit), int(limit)))
    work = work_type.model_validate_json(Path(sys.argv[1]).read_bytes())
    out = Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    try:
        done = main(work, out)
    except StageFailure as failure:
        traceback.print_exc()
        end_failed(failure)
    except DamagedSheet as damaged:
        traceback.print_exc()
        end_failed(StageFailure(FailureKind.SHEET, str(damaged)))
    except Exception as error:
        traceback.print_exc()
        kind = FailureKind.ENGINE if "Infer" in work_type.__name__ else FailureKind.HARNESS
        end_failed(StageFailure(kind, f"{type(error).__name__}: {error}"[:500]))
    emit("completed", done=done.model_dump(mode="json"))
    _leave(0)


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


def _end_with_supervisor() -> None:
    sys.stdin.buffer.read()
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)
