"""Which of a sample's numbers its suite counts, and whether they say right or wrong. Pure: reads no file.

A sample is judged by the metric and filter that the suite counts; a task's other numbers never decide.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from orchestrator.suites import SuiteBenchmark


class Counted(NamedTuple):
    """A number that a suite counts."""

    metric: str
    filter: str


def counted_numbers(benchmark: SuiteBenchmark | None, task: str) -> tuple[Counted, ...]:
    """What a benchmark counts of a task's samples; empty when that is not known.

    A part may name a group and samples are kept by subtask: then every part's number is meant.
    """
    if benchmark is None:
        return ()
    own = [part for part in benchmark.parts if fnmatchcase(task, part.task) and task not in part.except_tasks]
    return tuple(dict.fromkeys(Counted(part.metric, part.filter) for part in own or benchmark.parts))


def counted_filter(counted: Sequence[Counted], filters: Sequence[str]) -> str | None:
    """The first of these filters whose number counts; None when none is known to."""
    return next((name for name in filters if any(number.filter == name for number in counted)), None)


def deciding_metrics(record: Mapping[str, Any], counted: Sequence[Counted]) -> tuple[str, ...]:
    """The metrics of a record that decide: those counted, in another filter than the counted one the same metrics."""
    present = _metrics(record)
    named = [number for number in counted if number.metric in present]
    own = [number for number in named if number.filter == record.get("filter")]
    return tuple(dict.fromkeys(number.metric for number in own or named))


def is_right(record: Mapping[str, Any], counted: Sequence[Counted]) -> bool | None:
    """Whether a sample is right; None where its metric is no plain right or wrong, or where several disagree.

    Of several counted numbers all must say right; where it is not known what counts, all must say the same.
    """
    deciding = deciding_metrics(record, counted)
    values = [record.get(name) for name in deciding or _metrics(record)]
    plain = [round(float(value), 9) for value in values if isinstance(value, bool | int | float)]
    if not plain or any(value not in (0.0, 1.0) for value in plain):
        return None
    if not deciding and len(set(plain)) > 1:
        return None
    return all(value == 1.0 for value in plain)


def _metrics(record: Mapping[str, Any]) -> list[str]:
    found = record.get("metrics")
    return [str(name) for name in found] if isinstance(found, list) else []
