"""A stage program as a child process: started limited, listened to, stopped with its whole process group.

The child sees no credentials: its environment is a short list of allowed names, and inference runs with the Hub
offline. A child that outlived its supervisor would hold a GPU for nobody, so it ends when its standard input closes.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from orchestrator.wire import (
    Done,
    EngineFamily,
    FailureKind,
    InferDone,
    InferWork,
    PrepareDone,
    PrepareWork,
    ScoreDone,
    ScoreWork,
    Spent,
    Stage,
)
from workers.engine import openmp

PROGRAMS = {
    Stage.PREPARE: "workers.harness.prepare",
    Stage.INFER: "workers.engine.infer",
    Stage.SCORE: "workers.harness.score",
}

ALLOWED_ENVIRONMENT = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD",
    "PYTHONPATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
    "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE",
    "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME",
    "EVALYARD_DATASETS", "EVALYARD_CACHE",
)  # fmt: skip
"""Names a child may inherit, beside those that begin with `VLLM_`. Tokens and database addresses are not among them."""

SECRETS = frozenset({"VLLM_API_KEY"})
"""What begins with `VLLM_` and is a credential all the same."""

LOG_TAIL_BYTES = 4096

_done: TypeAdapter[PrepareDone | InferDone | ScoreDone] = TypeAdapter(Done)


@dataclass(frozen=True)
class Outcome:
    """How a stage ended. Exactly one of `done`, `failure` and `stopped` says it."""

    exit_code: int
    """Negative for a signal, as in subprocess."""
    done: PrepareDone | InferDone | ScoreDone | None
    failure: FailureKind | None
    sentence: str
    log_tail: str
    stopped: bool
    """Ended because it was asked to, with what it finished sealed."""
    lasting: bool = False
    """The same work would fail again on this host, with whatever footprint."""
    sealed: int = 0
    """Responses that it said it had sealed."""
    spent: Spent | None = None
    """What answering had used at the last seal, earlier engines of the attempt included; None without any seal."""


class Child:
    """A running stage program; made by `start`."""

    def __init__(self, process: subprocess.Popen[bytes], *, stage: Stage, log: Path) -> None:
        self._process = process
        self._stage = stage
        self._log = log
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._last: dict[str, Any] = {}
        self._sealed = 0
        self._spent: Spent | None = None
        self._memory_kills = memory_kills()
        self._asked_to_stop = False
        self._ended = False
        threading.Thread(target=self._listen, name=f"listen-{process.pid}", daemon=True).start()
        threading.Thread(target=self._bury, name=f"bury-{process.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        """Also the id of its process group."""
        return self._process.pid

    def events(self, timeout: float) -> list[dict[str, Any]]:
        """Events since the last call; waits up to `timeout` seconds for one, and returns none after the last."""
        found: list[dict[str, Any]] = []
        deadline = time.monotonic() + timeout
        while not self._ended:
            try:
                event = self._events.get(timeout=0 if found else max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if event is None:
                self._ended = True
            else:
                found.append(event)
        return found

    def running(self) -> bool:
        """Whether there may be more to hear: the process lives or its last events are not read yet."""
        return not self._ended

    def stop(self, grace_seconds: float) -> None:
        """Ask it to seal and end; after the grace its whole process group is killed. Returns when it is gone."""
        self._asked_to_stop = True
        with suppress(subprocess.TimeoutExpired):
            self._process.terminate()
            self._process.wait(grace_seconds)
        self.kill()

    def kill(self) -> None:
        """Kill the process group and wait until the process is gone."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def outcome(self) -> Outcome:
        """Wait for the end and say how it came. Drain `events` first to see them all."""
        exit_code = self._process.wait()
        while self.running():
            self.events(timeout=1.0)
        tail = log_tail(self._log)
        last = self._last
        if last.get("event") == "completed" and exit_code == 0:
            return Outcome(exit_code, _done.validate_python(last["done"]), None, "", tail, False, sealed=self._sealed)

        def failed(kind: FailureKind, sentence: str, *, lasting: bool = False) -> Outcome:
            return Outcome(
                exit_code, None, kind, sentence, tail, False, lasting=lasting, sealed=self._sealed, spent=self._spent
            )

        if last.get("event") == "failed":
            return failed(FailureKind(last["failure"]), last["sentence"], lasting=bool(last.get("lasting")))
        if self._asked_to_stop:
            return Outcome(exit_code, None, None, "Stopped as asked.", tail, True, sealed=self._sealed)
        if exit_code == -signal.SIGKILL and memory_kills() > self._memory_kills:
            sentence = f"The {self._stage} process was killed by the system, which ran out of memory."
            return failed(FailureKind.OUT_OF_MEMORY, sentence)
        kind = FailureKind.ENGINE if self._stage is Stage.INFER else FailureKind.HARNESS
        return failed(kind, f"The {self._stage} process {_ending(exit_code)}.")

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # not ours: stage.run keeps stdout for events, but a crashing library may still write there
            if isinstance(event, dict) and "event" in event:
                if event["event"] in ("completed", "failed", "stopped"):
                    self._last = event
                elif event["event"] == "sealed":
                    self._sealed += int(event.get("count", 0))
                    if "spent" in event:
                        self._spent = Spent.model_validate(event["spent"])
                self._events.put(event)
        self._process.wait()
        self._events.put(None)

    def _bury(self) -> None:
        """When the stage ends, its own children end too: one of them could hold a GPU, or our pipe, for ever."""
        self._process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def start(
    work: PrepareWork | InferWork | ScoreWork,
    out: Path,
    *,
    log: Path,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
    memory_bytes: int | None = None,
) -> Child:
    """Start the stage program of `work` with its outputs in `out` and its log in `log`.

    `environment` is added to what a child may inherit; `memory_bytes` limits its address space.
    """
    out.mkdir(parents=True, exist_ok=True)
    work_file = out.with_name(out.name + ".work.json")
    work_file.write_text(work.model_dump_json(indent=2), encoding="utf-8")
    limits = {} if memory_bytes is None else {"EVALYARD_MEMORY_BYTES": str(memory_bytes)}
    computes = isinstance(work, InferWork) and work.engine is not EngineFamily.SCRIPTED
    threads = openmp.environment() if computes else {}
    with log.open("ab") as err:
        process = subprocess.Popen(
            [python, "-m", PROGRAMS[work.stage], str(work_file), str(out)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
            env=child_environment(work.stage) | threads | limits | dict(environment or {}),
            start_new_session=True,
        )
    return Child(process, stage=work.stage, log=log)


def child_environment(stage: Stage) -> dict[str, str]:
    """The environment of a stage program: allowed names only, no remote code, the Hub offline during inference."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if (name in ALLOWED_ENVIRONMENT or name.startswith("VLLM_")) and name not in SECRETS
    }
    environment |= {
        "EVALYARD_SUPERVISED": "1",
        "PYTHONUNBUFFERED": "1",
        # `python -m` would import from the current folder first, and that may be a model's: its files are no code.
        "PYTHONSAFEPATH": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # A token that lies in the user's home is not a stage's to use.
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    # Where Evalyard runs from a checkout that is not installed, its packages are found beside this file.
    root = str(Path(__file__).resolve().parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    if stage is Stage.INFER:
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return environment


def memory_kills(path: Path = Path("/proc/vmstat")) -> int:
    """How many processes the kernel has killed for want of memory since this host started; 0 where it does not tell."""
    with suppress(OSError, ValueError):
        for line in path.read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def log_tail(log: Path) -> str:
    """The last few kilobytes of a log, from the beginning of a line."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_TAIL_BYTES))
        data = file.read()
    if size > LOG_TAIL_BYTES:
        data = data.partition(b"\n")[2]
    return data.decode(errors="replace")


def _ending(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code} and no word"
    if -exit_code == signal.SIGKILL:
        return "was killed (SIGKILL: by the system when memory runs out, or by hand)"
    return f"died of {signal.Signals(-exit_code).name}"
