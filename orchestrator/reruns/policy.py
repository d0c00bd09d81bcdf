"""What changed that scores depend on, and what follows from it without asking. Pure.

A plan is made by itself for a newer harness and for a suite file's new version. A moved dataset or another engine needs
an operator's eye: nothing says whether the old or the new one is wanted.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from orchestrator.lifecycle import RerunState
from orchestrator.program import program
from orchestrator.suites import Suite


class Policy(StrEnum):
    """What the hub does by itself."""

    OFF = "off"
    PLAN = "plan"
    START = "start"


class Kind(StrEnum):
    HARNESS = "harness"
    SUITE = "suite"
    DATASET = "dataset"
    ENGINE = "engine"


@dataclass(frozen=True)
class Change:
    """Something that scores depend on is another one than the board's scores were made with."""

    kind: Kind
    suite: str
    key: str
    """The same for the same change, whenever it is noticed."""
    sentence: str
    harness: str | None = None
    """Of a plan that answers it: with this harness; None for the suite file's own version."""

    @property
    def can_be_planned(self) -> bool:
        return self.kind in (Kind.HARNESS, Kind.SUITE)

    @property
    def next_step(self) -> str:
        """What an operator does about it, where that is one command."""
        if not self.can_be_planned:
            return ""
        harness = f" --harness {self.harness.removeprefix('lm_eval ')}" if self.harness else ""
        return f"Plan it: {program()} rerun plan --suite {self.suite}{harness}"


@dataclass(frozen=True)
class Planned:
    """A plan that there is or was, as far as it answers a change."""

    to_version: str
    to_harness: str
    state: RerunState


@dataclass(frozen=True)
class SuiteFacts:
    """What is known of one suite."""

    shown: Suite
    file: Suite
    finished: int
    """Evaluations under the shown version."""
    plans: tuple[Planned, ...] = ()
    """From the shown version."""
    shown_before: frozenset[str] = frozenset()
    """Versions that the board has shown earlier."""
    datasets: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """By dataset and task: its revision in the first and in the latest scores of the shown version."""
    engines: frozenset[str] = frozenset()
    """Engine versions behind the shown version's scores."""


def notice_changes(
    suites: Mapping[str, SuiteFacts], *, harnesses: frozenset[str], engines: Mapping[str, str]
) -> list[Change]:
    """Every change that no plan answers; `harnesses` are installed, `engines` gives a worker of each engine version."""
    found: list[Change] = []
    for name, facts in sorted(suites.items()):
        if facts.finished:
            found += filter(None, (_new_version(name, facts), _new_harness(name, facts, harnesses)))
            found += _new_datasets(name, facts)
            found += _new_engines(name, facts, engines)
    return found


def costs_no_device(estimate: Mapping[str, Any]) -> bool:
    """Whether a plan is known to need no engine: every request that it has is answered."""
    cells = estimate.get("cells")
    if not isinstance(cells, dict):
        return False
    return not cells.get("unknown") and not estimate.get("inferred") and not estimate.get("new_requests")


def _new_version(name: str, facts: SuiteFacts) -> Change | None:
    file, shown = facts.file, facts.shown
    if file.version == shown.version or file.version in facts.shown_before:
        return None  # the second is an operator's own step back
    if _extends(shown, file) or any(plan.to_version == file.version for plan in facts.plans):
        return None
    return Change(
        Kind.SUITE,
        name,
        f"suite {name} {shown.version} {file.version}",
        f"The file of suite '{name}' has version {file.version}; the board shows {shown.version}, with "
        f"{facts.finished} finished evaluations.",
    )


def _extends(shown: Suite, file: Suite) -> bool:
    """Whether the shown version is the file's with another harness: the file has nothing newer."""
    return shown.version.startswith(f"{file.version}+")


def _new_harness(name: str, facts: SuiteFacts, harnesses: frozenset[str]) -> Change | None:
    own = _numbers(facts.shown.harness)
    newer = [one for one in harnesses if own and (numbers := _numbers(one)) and numbers > own]
    newest = max(newer, key=lambda one: _numbers(one) or (), default=None)
    # A plan of any state answers it: an operator who abandoned one wants no other.
    if newest is None or any(plan.to_harness == newest for plan in facts.plans) or facts.file.harness == newest:
        return None
    return Change(
        Kind.HARNESS,
        name,
        f"harness {name} {facts.shown.version} {newest}",
        f"{newest} is installed; the board of '{name}' shows {facts.finished} evaluations made with "
        f"{facts.shown.harness}.",
        harness=newest,
    )


def _new_datasets(name: str, facts: SuiteFacts) -> list[Change]:
    # Many tasks may read one dataset: it is told once.
    moved = {(dataset, *ends) for (dataset, _), ends in facts.datasets.items() if ends[0] != ends[1]}
    return [
        Change(
            Kind.DATASET,
            name,
            f"dataset {name} {facts.shown.version} {dataset} {last}",
            f"The dataset {dataset} of '{name}' is read at revision {last[:12]} now; the first scores of version "
            f"{facts.shown.version} were made with {first[:12]}. Pin the one you want in the task's file, and give the "
            "suite a new version.",
        )
        for dataset, first, last in sorted(moved)
    ]


def _new_engines(name: str, facts: SuiteFacts, engines: Mapping[str, str]) -> list[Change]:
    if not facts.engines:
        return []
    return [
        Change(
            Kind.ENGINE,
            name,
            f"engine {name} {facts.shown.version} {version}",
            f"Worker {worker} answers with {version}; the scores of '{name}' were made with "
            f"{', '.join(sorted(facts.engines))}. Stored responses stay; a model that is evaluated anew may differ by "
            "rounding.",
        )
        for version, worker in sorted(engines.items())
        if version not in facts.engines
    ]


def _numbers(harness: str) -> tuple[int, ...] | None:
    """`lm_eval 0.4.13` as (0, 4, 13); None for what is no released version of lm-eval."""
    found = re.fullmatch(r"lm_eval (\d+(?:\.\d+)*)", harness)
    return tuple(map(int, found[1].split("."))) if found else None
