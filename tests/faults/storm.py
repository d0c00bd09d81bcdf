"""A seeded storm of faults against a fleet of real processes, under a steady load of evaluations.

The seed decides which faults come, in which order, how long each lasts, and what is submitted; the moment of each is
the machine's. Whether all went well is for `invariants`, from the database and the artifacts alone.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.exc import OperationalError
from sqlmodel import col, func, select

from orchestrator import db, jobs
from orchestrator.broker import BrokerLost
from orchestrator.errors import WrongState
from orchestrator.lifecycle import EvaluationState
from orchestrator.tables import Evaluation, Event, Job
from tests.faults.strikes import KINDS, Strikes
from tests.fleet import Fleet

REQUESTS: dict[str, float] = {"a person cancels": 1.0, "a person retries": 2.0}
"""What people do in the middle of it, with the weights of `KINDS`. Not counted as faults."""


@dataclass
class Storm:
    fleet: Fleet
    strikes: Strikes
    seed: int
    shapes: Sequence[tuple[str, int]]
    """Suites and limits that evaluations are submitted with."""
    model: Callable[[int], Path]
    """The folder of the model of this number."""
    pause_seconds: float
    """Between two faults, on average."""
    open_at_once: int = 6
    """Evaluations that are never fewer while it rages."""
    tell: Callable[[str], None] = print
    accepted: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Evaluations that were submitted, with their shapes."""
    made: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    failed: dict[int, str] = field(default_factory=dict)
    """Evaluations that had failed, wholly or in part, when the storm was over, with their sentences."""
    stopping: threading.Event = field(default_factory=threading.Event)
    """Somebody wants it to end now."""
    given_up: list[int] = field(default_factory=list)
    """Evaluations that were under way then, and were cancelled: the rest can be judged."""

    def rage(self, faults: int) -> None:
        """Make so many faults while evaluations go on; at the end everything runs undisturbed."""
        plan = random.Random(self.seed)
        kinds = KINDS | REQUESTS
        strike_at = time.monotonic()
        number = 0
        while self.made.total() < faults and not self.stopping.is_set():
            self.strikes.revive()
            self._keep_loaded()
            if time.monotonic() < strike_at:
                pause(0.05)
                continue
            number += 1
            draw = random.Random(f"{self.seed}/{number}")
            kind = plan.choices(list(kinds), list(kinds.values()))[0]
            if kind in REQUESTS:
                self.asked[kind] += self._ask(kind, draw)
            elif self.strikes.make(kind, draw):
                self.made[kind] += 1
                self.tell(f"{datetime.now(UTC):%H:%M:%S} {self.made.total()}/{faults} {kind}")
                strike_at = time.monotonic() + draw.expovariate(1 / self.pause_seconds)
        self.strikes.calm()

    def settle(self, *, stalled_seconds: float) -> None:
        """Wait until every evaluation has ended; then retry what failed, once, and wait again. Cancel all if to stop.

        Raises:
            AssertionError: nothing moved for so long.
        """
        self._wait(stalled_seconds)
        for one in sorted(self.accepted):
            evaluation = self.fleet.evaluation(one)
            if evaluation.state is not EvaluationState.CANCELLED and evaluation.average is None:
                self.failed[one] = evaluation.sentence
                if not self.stopping.is_set():
                    self._retry(one)
        self._wait(stalled_seconds)

    def _wait(self, stalled_seconds: float) -> None:
        def moved() -> tuple[object, ...]:
            return (
                self.fleet.rows(select(func.count()).select_from(Event))[0],
                self.fleet.rows(select(func.sum(Job.requests_done)))[0],
            )

        seen, since = moved(), time.monotonic()
        while self._unfinished():
            pause(0.2)
            self.strikes.revive()
            now = moved()
            if now != seen:
                seen, since = now, time.monotonic()
            still = time.monotonic() - since - self.strikes.disturbances.late_since(since)
            assert still < stalled_seconds, f"nothing moves; not ended: {self._unfinished()}\n{self.fleet.log()}"
            if self.stopping.is_set():
                self._give_up()

    def _give_up(self) -> None:
        for evaluation in self._unfinished():
            with suppress(WrongState):  # it has just ended
                self.fleet.cancel(evaluation)
                self.given_up.append(evaluation)

    def _keep_loaded(self) -> None:
        try:
            while len(self._unfinished()) < self.open_at_once:
                number = len(self.accepted)
                shape = random.Random(f"{self.seed}/work/{number}").choice(self.shapes)
                # Two evaluations of each model: what they share is computed once.
                evaluation = self.fleet.submit(self.model(number // 2), suite=shape[0], limit=shape[1])
                if evaluation in self.accepted:
                    evaluation = self.fleet.submit(self.model(1000 + number), suite=shape[0], limit=shape[1])
                self.accepted[evaluation] = shape
        except OperationalError as error:
            self.tell(f"not submitted: {str(error.orig).strip()}")

    def _ask(self, what: str, draw: random.Random) -> bool:
        wanted = self._unfinished() if what == "a person cancels" else self._in(EvaluationState.FAILED)
        if not wanted:
            return False
        try:
            evaluation = draw.choice(sorted(wanted))
            if what == "a person cancels":
                self.fleet.cancel(evaluation)
            else:
                self._retry(evaluation)
        except (WrongState, OperationalError, BrokerLost):
            return False
        return True

    def _retry(self, evaluation: int) -> None:
        with db.session(self.fleet.engine) as session:
            jobs.retry(session, evaluation, datetime.now(UTC))

    def _unfinished(self) -> list[int]:
        return self._in(*(state for state in EvaluationState if not state.is_final))

    def _in(self, *states: EvaluationState) -> list[int]:
        return self.fleet.rows(select(Evaluation.id).where(col(Evaluation.state).in_(states)))


def pause(seconds: float) -> None:
    """Let time pass: a storm is one of the few things that need it."""
    threading.Event().wait(seconds)
