"""Standings: one row for each finished evaluation of a suite, ranked by average or listed apart with the reason.

A board is of one version of a suite, and holds no evaluation of another; trials and gaps are never ranked. Pure.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from orchestrator.people import Visibility
from orchestrator.suites import Suite
from orchestrator.wire import EngineFamily


class Cell(NamedTuple):
    """One benchmark of one row, 0 to 100. A board has a hundred thousand of them."""

    value: float
    """Normalised as the suite says."""
    raw: float | None = None
    stderr: float | None = None
    samples: int = 0


@dataclass(frozen=True)
class Flagging:
    """A warning about a row, as operators wrote it."""

    kind: str
    reason: str
    link: str = ""


@dataclass(frozen=True)
class Standing:
    """One row of the board."""

    evaluation: int
    model: str
    revision: str
    suite: str
    suite_version: str
    precision: str
    engine: str
    model_type: str = "unknown"
    weight_type: str = "original"
    base_model: str | None = None
    architecture: str | None = None
    parameters: int | None = None
    licence: str | None = None
    chat_template: bool = False
    on_hub: bool = True
    active_parameters: int | None = None
    """Of a mixture of experts: the weights that one token meets; else all of them."""
    average: float | None = None
    cells: Mapping[str, Cell] = field(default_factory=dict)
    document_limit: int | None = None
    submitted_at: datetime | None = None
    ended_at: datetime | None = None
    device_seconds: float | None = None
    """How long devices were held to answer it, times their number; None where it was not told."""
    tokens_per_second: float | None = None
    """Prompt and generated tokens that engines computed, per second of engine time."""
    flags: tuple[Flagging, ...] = ()
    """What operators warn of, the oldest first."""
    visibility: Visibility = Visibility.PUBLIC
    team: str | None = None
    person: int | None = None
    """Who submitted it."""
    imported_from: str = ""
    """Where its numbers were imported from; empty for what was evaluated here."""
    rank: int | None = None
    """1 is the best; equal averages share a rank. None for a row that is listed apart."""
    apart_because: str = ""
    """Why the row is not ranked; empty for one that is."""

    @cached_property
    def folded(self) -> str:
        """The model's name for a search in any case; kept, since a search asks it of every row."""
        return self.model.casefold()

    @property
    def is_mixture(self) -> bool:
        """Whether only some of its weights meet each token."""
        return None not in (self.parameters, self.active_parameters) and self.active_parameters != self.parameters

    @cached_property
    def average_stderr(self) -> float | None:
        """Standard error of the average, benchmarks being independent; None when one of them has none."""
        errors = [cell.stderr for cell in self.cells.values() if cell.stderr is not None]
        if not errors or len(errors) < len(self.cells):
            return None
        return math.sqrt(math.fsum(error * error for error in errors)) / len(errors)


@dataclass(frozen=True)
class Board:
    """The rows of one suite version."""

    suite: Suite
    ranked: tuple[Standing, ...] = ()
    apart: tuple[Standing, ...] = ()


def rank_rows(suite: Suite, rows: Iterable[Standing]) -> Board:
    """Rows in their order with their ranks; those that may not be ranked apart, with the reason. Pure."""
    ranked: list[Standing] = []
    apart: list[Standing] = []
    for row in rows:
        because = apart_because(suite, row)
        if because:
            apart.append(replace(row, rank=None, apart_because=because))
        else:
            ranked.append(row)
    ranked.sort(key=lambda row: (-(row.average or 0.0), row.model.casefold(), row.evaluation))
    placed: list[Standing] = []
    for position, row in enumerate(ranked, start=1):
        equal = placed[-1] if placed and placed[-1].average == row.average else None
        placed.append(replace(row, rank=equal.rank if equal else position, apart_because=""))
    apart.sort(key=lambda row: row.evaluation, reverse=True)
    return Board(suite, tuple(placed), tuple(apart))


def apart_because(suite: Suite, row: Standing) -> str:
    """Why a row may not be ranked on the board of this suite; empty for one that may."""
    if row.engine == EngineFamily.SCRIPTED:
        return "Its answers are made up by the scripted engine, the test double: no model gave them."
    if row.suite_version != suite.version:
        return f"Made under version {row.suite_version} of the suite; this board shows version {suite.version}."
    if row.document_limit is not None:
        return f"A trial: at most {row.document_limit} documents of each task."
    missing = [benchmark.name for benchmark in suite.benchmarks if benchmark.name not in row.cells]
    if missing:
        return f"No score for {', '.join(missing)}, so there is no average."
    if row.average is None or not math.isfinite(row.average):
        return "There is no average."
    return ""
