"""The record of what a re-run changed, as every form of its report shows it. Plain facts: decides and reads nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from urllib.parse import urlencode

AVERAGE = "Average"
MOST_MOVERS = 10
UNCHANGED = 1e-9
"""Scores closer than this are equal: they are sums of the same numbers in another order."""


class Value(NamedTuple):
    """A score, 0 to 100, with its standard error."""

    value: float
    stderr: float | None = None


@dataclass(frozen=True)
class Change:
    """One benchmark of one model under both versions; None where it has no score."""

    benchmark: str
    before: Value | None
    after: Value | None

    @property
    def difference(self) -> float | None:
        return self.after.value - self.before.value if self.before and self.after else None

    @property
    def is_changed(self) -> bool:
        return self.difference is not None and abs(self.difference) > UNCHANGED


@dataclass(frozen=True)
class ModelChange:
    """One submission under both versions."""

    model: str
    revision: str
    precision: str
    before: int
    """Evaluation under the old version."""
    after: int
    """Evaluation under the new one."""
    average: Change
    changes: tuple[Change, ...]
    rank_before: int | None = None
    """Among the models that are ranked under both versions."""
    rank_after: int | None = None
    left_out_because: str = ""
    """Why its numbers are not counted; empty where they are."""

    @property
    def climbed(self) -> int | None:
        """Ranks that it rose; negative where it fell."""
        return None if self.rank_before is None or self.rank_after is None else self.rank_before - self.rank_after

    def compared(self, benchmark: str) -> str:
        """Path of the page with the samples of both, side by side."""
        return "/diff?" + urlencode({"a": self.before, "b": self.after, "benchmark": benchmark})


class Mover(NamedTuple):
    model: ModelChange
    change: Change


@dataclass(frozen=True)
class Shift:
    """How the models' scores of one benchmark, or their averages, moved; all numbers over models with both."""

    benchmark: str
    models: int
    changed: int = 0
    """Models whose score is another one."""
    mean_before: float | None = None
    mean_after: float | None = None
    shift: float | None = None
    """Mean of the differences, model by model."""
    low: float | None = None
    """Of the shift's 95 % interval, Student's, over models; None for fewer than two."""
    high: float | None = None
    pearson: float | None = None
    spearman: float | None = None
    kendall: float | None = None
    """Tau-b."""
    movers: tuple[Mover, ...] = ()
    verdicts: Mapping[str, int] = field(default_factory=dict)
    """For how many evaluations the plan found it `same`, `score`, `infer` or `incomparable`."""
    sentences: tuple[str, ...] = ()
    """What the plan found to differ."""


@dataclass(frozen=True)
class Report:
    """Everything that each form of the report shows."""

    rerun: int
    suite: str
    title: str
    from_version: str
    to_version: str
    from_harness: str
    to_harness: str
    state: str
    made_at: datetime
    finished_before: int
    """Finished evaluations of the old version."""
    compared: int
    """Those of them that are finished under the new one, too, and counted."""
    average: Shift
    shifts: tuple[Shift, ...]
    models: tuple[ModelChange, ...]
    """Largest change of the average first."""
    left_out: tuple[ModelChange, ...]
    only_before: tuple[str, ...] = ()
    """Benchmarks that the new version has not."""
    only_after: tuple[str, ...] = ()

    @property
    def movers(self) -> tuple[Mover, ...]:
        """The largest changes of single benchmarks, over all of them."""
        found = [mover for shift in self.shifts for mover in shift.movers]
        found.sort(key=lambda mover: (-abs(mover.change.difference or 0.0), mover.model.model.casefold()))
        return tuple(found[:MOST_MOVERS])

    @property
    def rank_changes(self) -> tuple[ModelChange, ...]:
        """The models whose rank is another one, the longest ways first."""
        moved = [model for model in self.models if model.climbed]
        return tuple(sorted(moved, key=lambda model: (-abs(model.climbed or 0), model.rank_after or 0)))
