"""How long a job is likely to take, from the measured speeds of finished ones. Pure; no measure, no estimate.

A speed is requests per second of one suite by models of one size (a power of two of active parameters) on one kind of
device. Where that very size was not measured, the nearest one within a factor of eight counts, scaled by the size;
where the suite was not, all suites of that device and size together.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from orchestrator.scheduling.places import QueuedJob
from orchestrator.wire import EngineFamily

FARTHEST = 3
"""Powers of two between sizes that are still similar."""


class Measure(NamedTuple):
    """Sums over finished attempts."""

    engine: EngineFamily
    device: str
    suite: str
    size_class: int
    runs: int
    requests: int
    engine_seconds: float
    start_seconds: float


@dataclass(frozen=True)
class Estimate:
    start: timedelta
    """Loading and warming up the engine."""
    answering: timedelta
    runs: int
    """Finished runs that it is from."""
    same_size: bool
    same_suite: bool

    @property
    def total(self) -> timedelta:
        return self.start + self.answering


class _Speed(NamedTuple):
    per_second: float
    start: timedelta
    runs: int
    same_size: bool
    same_suite: bool


class Speeds:
    """Everything that was measured; an estimate for each job and device that are like something of it."""

    def __init__(self, measures: Iterable[Measure] = ()) -> None:
        self._measured: dict[tuple[EngineFamily, str, str], dict[int, list[Measure]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for one in measures:
            if one.requests > 0 and one.engine_seconds > 0 and one.runs > 0:
                self._measured[one.engine, one.device, one.suite][one.size_class].append(one)
                self._measured[one.engine, one.device, ""][one.size_class].append(one)
        self._found: dict[tuple[EngineFamily, str, str, int], _Speed | None] = {}

    def __bool__(self) -> bool:
        return bool(self._measured)

    def of(self, job: QueuedJob, device: str) -> Estimate | None:
        """How long the job would take on this device (`device_key`); None without a measure, or without its size."""
        key = (job.engine, device, job.suite, size_class(job.parameters))
        if key not in self._found:
            self._found[key] = self._find(*key)
        speed = self._found[key]
        if speed is None or not job.requests:
            return None
        answering = timedelta(seconds=min(job.requests / speed.per_second, 3.15e8))
        return Estimate(speed.start, answering, speed.runs, speed.same_size, speed.same_suite)

    def _find(self, engine: EngineFamily, device: str, suite: str, size: int) -> _Speed | None:
        for named in dict.fromkeys((suite, "")):
            by_size = self._measured.get((engine, device, named), {})
            near = [other for other in by_size if abs(other - size) <= FARTHEST and (other < 0) == (size < 0)]
            if near:
                best = min(near, key=lambda other: (abs(other - size), other))
                found = by_size[best]
                runs = sum(one.runs for one in found)
                measured = sum(one.requests for one in found) / sum(one.engine_seconds for one in found)
                start = sum(one.start_seconds for one in found) / runs
                per_second = measured * 2.0 ** (best - size)
                return _Speed(per_second, timedelta(seconds=start), runs, best == size, bool(named))
        return None


def size_class(parameters: int | None) -> int:
    """The power of two below the number of parameters; -1 where that is not known."""
    return parameters.bit_length() - 1 if parameters and parameters > 0 else -1


def device_key(device: str, devices: int) -> str:
    """What a speed is measured on: the device by its name, and how many of them one engine uses."""
    return f"{devices} × {device}" if devices > 1 else device
