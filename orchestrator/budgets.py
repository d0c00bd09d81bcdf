"""How often a job that failed is tried again, and after which pause. Pure.

A lost host or a store that is away does not use up the tries that a model's own errors get.
"""

from dataclasses import dataclass
from datetime import timedelta

from orchestrator.lifecycle import INFRASTRUCTURE, TRANSIENT
from orchestrator.wire import FailureKind


@dataclass(frozen=True)
class Budgets:
    model_retries: int = 2
    infrastructure_retries: int = 10
    first_pause_seconds: float = 5.0
    """Pause before the second retry; the first one is made at once, each later one waits twice as long."""
    longest_pause_seconds: float = 300.0
    long_enough: timedelta = timedelta(hours=1)
    """An inference that ran for so long until its host was lost keeps what it answered: earlier losses are forgiven."""


@dataclass(frozen=True)
class Tally:
    """Failures of a job so far, the present one included."""

    model: int
    infrastructure: int


def count(kind: FailureKind, before: Tally) -> Tally:
    """The tally with one more failure of this kind."""
    if kind in INFRASTRUCTURE:
        return Tally(before.model, before.infrastructure + 1)
    return Tally(before.model + 1, before.infrastructure)


def pause_before_retry(kind: FailureKind, tally: Tally, budgets: Budgets, *, jitter: float = 0.0) -> timedelta | None:
    """How long to wait before the next attempt, or None when the job has failed for good.

    `jitter`, from 0 to 1, shortens the pause by up to a quarter: jobs that failed together are not tried together.
    """
    if kind not in TRANSIENT:
        return None
    infrastructure = kind in INFRASTRUCTURE
    failures = tally.infrastructure if infrastructure else tally.model
    if failures > (budgets.infrastructure_retries if infrastructure else budgets.model_retries):
        return None
    if failures <= 1:
        return timedelta(0)
    doublings = min(failures - 2, 60)
    pause = min(budgets.first_pause_seconds * 2**doublings, budgets.longest_pause_seconds)
    return timedelta(seconds=pause * (1 - 0.25 * jitter))
