"""The scripted engine: answers from the request's hash, at once, without weights. For tests of all but inference.

Its answers mean nothing and are always the same. It can be slow (`delay_seconds` for each request), die in the middle
(`crash_after` responses, by SIGKILL) or answer one request with NaN (`nan_at`), so that flow tests can be rough.
"""

import os
import signal
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from workers.engine.engine import refuse_unknown_settings
from workers.segments import Generated, Response, Scored
from workers.sheets import Loglikelihood, Request

TEXTS = (" A", " B", " (C)", " the answer is 4", " 7\n#### 7", " yes", " no", " Paris, in France")

DEFAULTS: dict[str, Any] = {"delay_seconds": 0.0, "batch": 256, "crash_after": None, "nan_at": None}


class ScriptedEngine:
    def __init__(self, settings: dict[str, Any]) -> None:
        refuse_unknown_settings(settings, tuple(DEFAULTS))
        self.settings = DEFAULTS | settings
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
        if delay:
            time.sleep(delay * len(batch))
        return [self._answer(request) for request in batch]

    def busy(self) -> bool:
        return bool(self._waiting)

    def _answer(self, request: Request) -> Response:
        if self._answered == self.settings["crash_after"]:
            os.kill(os.getpid(), signal.SIGKILL)
        position, self._answered = self._answered, self._answered + 1
        self.tokens_computed += request.length
        response = answer(request)
        if position == self.settings["nan_at"] and isinstance(response, Scored):
            return Scored(response.id, float("nan"), response.greedy)
        return response


def answer(request: Request) -> Response:
    """The one answer to a request, in any process and at any time."""
    seed = int(request.id[:12], 16)
    if isinstance(request, Loglikelihood):
        return Scored(request.id, -(seed % 10_000_019) / 1e6 - 1e-6, seed % 16 == 0)
    text = TEXTS[seed % len(TEXTS)]
    return Generated(request.id, text, [seed % 251, (seed >> 8) % 251], "stop")
