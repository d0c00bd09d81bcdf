"""The scripted engine: answers from the request's hash, at once, without weights. For tests of all but inference.

Its answers mean nothing and are always the same. So that tests can be rough it can be slow (`delay_seconds` for each
request) and fail in every way that an engine fails: `DEFAULTS` lists them.
"""

import ctypes
import os
import signal
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workers.engine.engine import refuse_unknown_settings
from workers.segments import Generated, Response, Scored
from workers.sheets import Loglikelihood, Request

TEXTS = (" A", " B", " (C)", " the answer is 4", " 7\n#### 7", " yes", " no", " Paris, in France")

FOR_EVER = 1_000_000

DEFAULTS: dict[str, Any] = {
    "delay_seconds": 0.0,
    "batch": 256,  # requests at a time; half as many for each level of the footprint
    "oom_above": None,  # more requests at a time than these run out of memory
    "crash_after": None,  # killed by SIGKILL after so many answers
    "nan_at": None,  # the answer of this number is NaN
    "dies_at": None,  # hash prefix of requests that kill it by SIGSEGV
    "raises_at": None,  # hash prefix of requests that make it raise
    "hangs_at": None,  # hash prefix of requests that it never ends
    "freezes_at": None,  # the same, and the interpreter stands still
    "drift": 0.0,  # log-likelihoods are off by up to so much, and where it is not 0 one text in two is another
    "journal": None,  # file to which the hash of each answer is appended, whatever becomes of it
}


class ScriptedEngine:
    def __init__(self, settings: dict[str, Any], *, footprint: int = 0) -> None:
        refuse_unknown_settings(settings, tuple(DEFAULTS))
        self.settings = DEFAULTS | settings
        self.settings["batch"] = max(1, int(self.settings["batch"]) >> footprint)
        self._faults = [name for name in DEFAULTS if name.endswith("s_at") and self.settings[name] is not None]
        self.tokens_computed = 0
        self.tokens_reused = 0
        self._waiting: deque[Request] = deque()
        self._answered = 0

    def start(self) -> None:
        pass

    def wants_more(self) -> bool:
        return len(self._waiting) < int(self.settings["batch"])

    def wants_generations(self) -> bool:
        return True

    def submit(self, group: Sequence[Request]) -> None:
        self._waiting.extend(group)

    def step(self) -> list[Response]:
        # A batch takes its time as one sleep, but never long: the stage must notice that it is asked to stop.
        delay = float(self.settings["delay_seconds"])
        size = max(1, min(int(self.settings["batch"]), int(0.2 / delay))) if delay else int(self.settings["batch"])
        batch = [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]
        if self.settings["oom_above"] is not None and len(batch) > int(self.settings["oom_above"]):
            raise MemoryError("out of memory, as the script says")
        if delay:
            time.sleep(delay * len(batch))
        responses = [self._answer(request) for request in batch]
        if self.settings["journal"]:
            with Path(self.settings["journal"]).open("a", encoding="ascii") as journal:
                journal.writelines(f"{response.id}\n" for response in responses)
        return responses

    def busy(self) -> bool:
        return bool(self._waiting)

    def _answer(self, request: Request) -> Response:
        if self._answered == self.settings["crash_after"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._faults:
            self._fail_at(request)
        position, self._answered = self._answered, self._answered + 1
        self.tokens_computed += request.length
        response = answer(request, drift=float(self.settings["drift"]))
        if position == self.settings["nan_at"] and isinstance(response, Scored):
            return Scored(response.id, float("nan"), response.greedy)
        return response

    def _fail_at(self, request: Request) -> None:
        for fault in self._faults:
            if not request.id.startswith(self.settings[fault]):
                continue
            if fault == "dies_at":
                os.kill(os.getpid(), signal.SIGSEGV)
            elif fault == "raises_at":
                raise RuntimeError("this request cannot be computed, as the script says")
            elif fault == "hangs_at":
                time.sleep(FOR_EVER)
            elif fault == "freezes_at":
                ctypes.PyDLL(None).sleep(FOR_EVER)  # unlike CDLL it keeps the interpreter's lock


def answer(request: Request, *, drift: float = 0.0) -> Response:
    """The one answer to a request, in any process and at any time; with `drift` the one of another build."""
    seed = int(request.id[:12], 16)
    if isinstance(request, Loglikelihood):
        off = drift * (seed % 2_001 / 1_000 - 1)
        return Scored(request.id, -(seed % 10_000_019) / 1e6 - 1e-6 + off, seed % 16 == 0)
    text = TEXTS[(seed + (drift != 0 and seed >> 20 & 1)) % len(TEXTS)]
    return Generated(request.id, text, [seed % 251, (seed >> 8) % 251], "stop")
