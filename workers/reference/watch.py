"""Watches lm-eval's model from outside: how long it took to start and to answer, how much it was asked.

The model is constructed once in a process and answers unchanged; only clocks stand around its methods.
"""

import importlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from workers import stage

REQUESTS = ("loglikelihood", "loglikelihood_rolling", "generate_until")
ENCODING = ("tok_encode", "tok_batch_encode", "_encode_pair")

REPORT_SECONDS = 1.0


class WatchedBackEnd:
    """Stands for a back end's class in lm-eval's registry."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._model: Any = None
        self._benchmark = ""
        self._requesting = self._encoding = 0
        self._answered = 0
        self._next_report = 0.0
        self.start_seconds = 0.0
        self.begin("")

    def begin(self, benchmark: str) -> None:
        """Count from zero for the next benchmark."""
        self._benchmark = benchmark
        self.requests: Counter[str] = Counter()
        self.request_seconds = self.encode_seconds = 0.0
        self._answered = 0

    def install(self) -> None:
        """From now on lm-eval finds this where it looks for the back end's class."""
        registry: Any = importlib.import_module("lm_eval.api.registry")
        find = registry.get_model
        registry.get_model = lambda name: (
            SimpleNamespace(create_from_arg_obj=lambda *given: self._make(find, *given))
            if name == self._name
            else find(name)
        )

    def add_partial(self, kind: str, request: Any, answer: Any) -> None:
        """lm-eval's cache hook: called for each answer, batch by batch."""
        self._answered += 1
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + REPORT_SECONDS
            self._report()

    def _make(self, find: Callable[[str], Any], *given: Any) -> Any:
        if self._model is None:
            stage.emit("phase", phase=f"starting lm-eval's {self._name} back end")
            started = time.perf_counter()
            self._model = find(self._name).create_from_arg_obj(*given)
            self.start_seconds = time.perf_counter() - started
            self._model.set_cache_hook(self)
            for name in REQUESTS:
                setattr(self._model, name, self._timed_request(name, getattr(self._model, name)))
            for name in ENCODING:
                if hasattr(self._model, name):
                    setattr(self._model, name, self._timed_encoding(getattr(self._model, name)))
        return self._model

    def _timed_request(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(requests: list[Any], *args: Any, **kwargs: Any) -> Any:
            if self._requesting:
                return method(requests, *args, **kwargs)
            self._requesting += 1
            self.requests[name] += len(requests)
            stage.emit("phase", phase=f"answering {self._benchmark}")
            self._report()
            started = time.perf_counter()
            try:
                return method(requests, *args, **kwargs)
            finally:
                self.request_seconds += time.perf_counter() - started
                self._requesting -= 1
                self._answered = self.requests.total()
                self._report()

        return timed

    def _timed_encoding(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._encoding or not self._requesting:
                return method(*args, **kwargs)
            self._encoding += 1
            started = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self.encode_seconds += time.perf_counter() - started
                self._encoding -= 1

        return timed

    def _report(self) -> None:
        total = self.requests.total()
        stage.emit("progress", benchmark=self._benchmark, done=min(self._answered, total), total=total)


def peak_rss_bytes() -> int:
    """The highest memory of this process and of its living children, each at its own peak (`VmHWM`)."""
    peak = 0
    for process in ("self", *_descendants()):
        with suppress(OSError, ValueError):
            for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
                if line.startswith("VmHWM:"):
                    peak += int(line.split()[1]) * 1024
    return peak


def peak_gpu_bytes() -> int | None:
    """What torch held at most in this process; what is taken of the device where the engine is another process."""
    torch: Any = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return None
    own = int(torch.cuda.max_memory_reserved())
    free, total = torch.cuda.mem_get_info()
    return own or int(total - free)


def _descendants() -> Iterator[str]:
    parents: dict[str, list[str]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                # The name in parentheses may hold spaces; the parent is the second field after it.
                fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                parents.setdefault(fields[1], []).append(folder.name)
    waiting = [str(os.getpid())]
    while waiting:
        children = parents.get(waiting.pop(), [])
        yield from children
        waiting += children
