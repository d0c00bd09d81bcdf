"""What a worker tells the hub of an attempt, and how it makes sure that the end of one is heard.

Whatever it says may come late, twice or not at all: the attempt's id is the fence.
"""

import contextlib
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from orchestrator.broker import BrokerLost, MessageTooLarge
from orchestrator.wire import FailureKind, Progress, Update

log = logging.getLogger(__name__)

MOST_PAUSE = 5.0
"""Seconds between two tries to tell an end."""


class Hub(Protocol):
    """What a worker says to and hears from the hub about attempts."""

    def send(self, update: Update) -> None:
        """Raises BrokerLost when it could not be sent, MessageTooLarge when it never can be."""

    def stop_requested(self, attempt: str) -> str | None: ...


class Reports:
    """Says to the hub what becomes of the attempts of one worker."""

    def __init__(self, hub: Hub, worker: str) -> None:
        self._hub = hub
        self._worker = worker

    def say(self, update: Update) -> None:
        """Tell it once; it may be lost."""
        with contextlib.suppress(BrokerLost, MessageTooLarge):
            self._hub.send(update)

    def insist(self, update: Update, *, vain: Callable[[], bool], stopping: threading.Event) -> None:
        """Tell it again and again until it is sent, or telling it is in vain; heartbeats keep the lease meanwhile.

        An end that is too large for a message is told as a failure, which is small.
        """
        log.info("attempt %s: %s %s", update.attempt, update.event, update.sentence)
        pause = 0.5
        while True:
            try:
                self._hub.send(update)
                return
            except MessageTooLarge as error:
                log.error("attempt %s: %s", update.attempt, error)  # the sentence says it all
                if update.event == "failed":
                    return  # not even that: the lease will end the attempt
                update = self.update(update.attempt, "failed", failure=FailureKind.HARNESS, sentence=str(error))
            except BrokerLost as error:
                if vain() or stopping.is_set():
                    log.warning("attempt %s: gave up telling the hub: %s", update.attempt, error)
                    return
                stopping.wait(pause)
                pause = min(pause * 2, MOST_PAUSE)

    def update(
        self,
        attempt: str,
        event: Literal["started", "completed", "failed", "released"],
        *,
        done: Any = None,
        failure: FailureKind | None = None,
        sentence: str = "",
        tail: str = "",
        preempted: bool = False,
        progress: Progress | None = None,
    ) -> Update:
        """What became of an attempt; `progress` is told with an end that is no completion."""
        return Update(
            attempt=attempt,
            worker=self._worker,
            at=datetime.now(UTC),
            event=event,
            done=done,
            failure=failure,
            sentence=sentence,
            log_tail=tail,
            preempted=preempted,
            progress=progress,
        )
