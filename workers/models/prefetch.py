"""Fetches ahead: the weights that the hub expects this worker to need next, while the engine computes others.

A thread that takes one model at a time and yields to all else: its files come one after the other, at the lowest
priority, and it gives up a model for which there is no room beside what is used. Nothing depends on it.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable

from orchestrator.broker import UnreadableMessage
from orchestrator.wire import Forecast, Model
from workers.models.weights import ModelUnavailable, Weights, is_local

log = logging.getLogger(__name__)

AGAIN_SECONDS = 60.0
"""A model that was tried is not tried again before."""

LOW_PRIORITY = 10
"""Niceness of the thread, and of those that it starts."""


class Prefetcher(threading.Thread):
    def __init__(self, weights: Weights, *, look: Callable[[], Forecast | None], pause_seconds: float) -> None:
        """`look` finds the newest forecast for this worker."""
        super().__init__(name="prefetch", daemon=True)
        self.stopping = threading.Event()
        """Set it to fetch no further model; a download under way ends with the process."""
        self._weights = weights
        self._look = look
        self._pause_seconds = pause_seconds
        self._not_before: dict[Model, float] = {}

    def run(self) -> None:
        if sys.platform == "linux":  # elsewhere a thread has no priority of its own by this call
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW_PRIORITY)
        while not self.stopping.wait(self._pause_seconds):
            try:
                self.fetch_next()
            except Exception:
                log.exception("fetching ahead failed")

    def fetch_next(self) -> Model | None:
        """Fetch the first expected model that is not here, if any; returns the one that was fetched."""
        try:
            forecast = self._look()
        except UnreadableMessage as error:
            log.warning("%s", error)
            return None
        models = [
            model for model in (forecast.models if forecast else ()) if not is_local(model.revision, model.folder)
        ]
        self._weights.expect(models)
        now = time.monotonic()
        for model in models:
            if self.stopping.is_set():
                return None
            if self._not_before.get(model, now) > now or self._weights.has(model):
                continue
            self._not_before = {kept: then for kept, then in self._not_before.items() if then > now}
            self._not_before[model] = now + AGAIN_SECONDS
            log.info("fetching ahead: %s at %s", model.name, model.revision[:12])
            try:
                self._weights.resolve(model, weights=True, ahead=True)
            except ModelUnavailable as error:
                log.info("not fetched ahead: %s", error.sentence)
                continue
            log.info("fetched ahead: %s at %s", model.name, model.revision[:12])
            return model
        return None
