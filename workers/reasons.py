"""Why an attempt is ended from outside its stage: asked to, no longer its worker's, too slow, or silent.

It looks and says; ending the stage is for whoever runs it.
"""

import threading
import time
from collections.abc import Callable

from orchestrator.wire import FailureKind, Order
from workers.reports import Hub

ASK_SECONDS = 1.0
"""Pause between two looks for a note that asks to stop."""


class AttemptFailed(Exception):
    """The attempt cannot go on, with the class of the failure and a sentence."""

    def __init__(self, kind: FailureKind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence


class AttemptStopped(Exception):
    """The attempt was asked to stop, for the reason given."""

    def __init__(self, sentence: str, *, preempted: bool = False) -> None:
        super().__init__(sentence)
        self.preempted = preempted


class Reasons:
    """Looks whether one attempt must end."""

    def __init__(
        self, order: Order, hub: Hub, stopping: threading.Event, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._order = order
        self._hub = hub
        self._stopping = stopping
        self._now = now
        self._heard_at = now()
        """Last moment at which the hub can have extended the lease."""
        self._asked_at = float("-inf")
        self._preempted: str | None = None
        self._deadline: float | None = None
        self._stage_heard_at = now()

    def heard(self) -> None:
        """The hub was told that the attempt runs."""
        self._heard_at = self._now()

    def stage_heard(self) -> None:
        """The stage said something, or was just started."""
        self._stage_heard_at = self._now()

    def start_clock(self) -> None:
        """From now on the order's time limit counts."""
        if self._order.timeout_seconds is not None:
            self._deadline = self._now() + self._order.timeout_seconds

    def preempt(self, sentence: str) -> None:
        """Others want the devices."""
        self._preempted = sentence

    def devices_are_wanted(self) -> bool:
        """Whether nothing of the attempt may stay on its devices."""
        return self._preempted is not None or self._stopping.is_set()

    def lease_ended(self) -> bool:
        """Whether the hub has given the job to another by now."""
        return self._now() - self._heard_at > self._order.lease_seconds

    def give_back(self) -> AttemptStopped | None:
        """Why the attempt is to be given back, if it is. Asks the broker now and then."""
        if self._preempted is not None:
            return AttemptStopped(self._preempted, preempted=True)
        if self._stopping.is_set():
            return AttemptStopped("The worker is stopping.")
        if self._now() - self._asked_at > ASK_SECONDS:
            note = self._hub.stop_requested(self._order.attempt)
            self._asked_at = self._now()
            if note:
                return AttemptStopped(note)
        if self.lease_ended():
            # Two engines for one job help nobody.
            return AttemptStopped(
                f"The hub could not be reached for {self._order.lease_seconds:g} s: the lease has ended."
            )
        return None

    def end_stage(self) -> AttemptStopped | AttemptFailed | None:
        """Why the stage that runs is to be ended, if it is."""
        return self.give_back() or self._timed_out() or self._stalled()

    def _timed_out(self) -> AttemptFailed | None:
        if self._deadline is None or self._now() <= self._deadline:
            return None
        return AttemptFailed(
            FailureKind.TIMEOUT,
            f"The {self._order.work.stage} stage took longer than its limit of {self._order.timeout_seconds:g} s. "
            "Retry on a faster worker or with a smaller --limit.",
        )

    def _stalled(self) -> AttemptFailed | None:
        """A stage that says nothing for very long hangs: its supervisor's heartbeats would keep the job for ever."""
        stall = self._order.stall_seconds
        if stall is None or self._now() - self._stage_heard_at <= stall:
            return None
        return AttemptFailed(
            FailureKind.ENGINE,
            f"The {self._order.work.stage} stage said nothing for {stall:g} s: it hangs. Whatever it answered before "
            "is kept.",
        )
