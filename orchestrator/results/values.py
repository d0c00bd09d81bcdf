"""What the harness's numbers add up to: a benchmark's value and a suite's average, by published formulas. Pure."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import EvalyardError
from orchestrator.suites import Part, Suite, SuiteBenchmark
from orchestrator.wire import ScoreValue


class MissingScore(EvalyardError):
    """A benchmark's scores lack a number that its suite counts."""


@dataclass(frozen=True)
class BenchmarkValue:
    """What the board shows of one benchmark, all from 0 to 100."""

    value: float
    raw: float
    stderr: float | None
    """Of `value`; None when the harness gives none for one of the parts."""


def normalise(value: float, low: float, high: float = 1.0) -> float:
    """`value` on the scale where guessing (`low`) is 0 and `high` is 100; below guessing is 0.

    The formula of the Open LLM Leaderboard v2.
    """
    return max(value - low, 0.0) / (high - low) * 100.0


def evaluate_benchmark(benchmark: SuiteBenchmark, scores: Sequence[ScoreValue]) -> BenchmarkValue:
    """The benchmark's value: the unweighted mean over its parts, each normalised by itself first.

    Raises:
        MissingScore: a counted number is absent, or is no number.
    """
    counted: list[tuple[Part, ScoreValue]] = []
    for part in benchmark.parts:
        found = part.select(scores)
        if len(found) != part.count:
            raise MissingScore(
                f"Benchmark '{benchmark.name}' counts {part.count} score(s) of '{part.task}' ({part.metric}, "
                f"{part.filter}) and the harness gave {len(found)}. Compare the suite file with the harness's results."
            )
        counted += [(part, score) for score in found]
    for _, score in counted:
        if not math.isfinite(score.value):
            raise MissingScore(f"'{score.task}' has no finite {score.metric}: {score.value} is not a score.")
    mean = math.fsum(score.value for _, score in counted) / len(counted) * 100.0
    raw = mean if benchmark.raw_task is None else _group_value(benchmark, scores)
    if not benchmark.normalised:
        return BenchmarkValue(value=mean, raw=raw, stderr=_stderr(counted, normalised=False))
    value = math.fsum(normalise(score.value, part.baseline) for part, score in counted) / len(counted)
    return BenchmarkValue(value=value, raw=raw, stderr=_stderr(counted, normalised=True))


def average(suite: Suite, values: Mapping[str, BenchmarkValue]) -> float | None:
    """The unweighted mean over all benchmarks of the suite, unrounded; None while one has no value."""
    if any(benchmark.name not in values for benchmark in suite.benchmarks):
        return None
    return math.fsum(values[benchmark.name].value for benchmark in suite.benchmarks) / len(suite.benchmarks)


def _group_value(benchmark: SuiteBenchmark, scores: Sequence[ScoreValue]) -> float:
    first = benchmark.parts[0]
    for score in scores:
        if (score.task, score.metric, score.filter) == (benchmark.raw_task, first.metric, first.filter):
            return score.value * 100.0
    raise MissingScore(
        f"Benchmark '{benchmark.name}' shows {first.metric} of '{benchmark.raw_task}' as raw; the harness gave none. "
        "Compare `raw_task` in the suite file with the harness's results."
    )


def _stderr(counted: Iterable[tuple[Part, ScoreValue]], *, normalised: bool) -> float | None:
    """Standard error of the mean over parts.

    Tasks are independent, so their errors add in quadrature; two metrics of one task see the same samples, so theirs
    add up plainly, which is never too small.
    """
    by_task: dict[str, float] = defaultdict(float)
    parts = 0
    for part, score in counted:
        if score.stderr is None or not math.isfinite(score.stderr):
            return None
        scale = 1.0 / (1.0 - part.baseline) if normalised else 1.0
        by_task[score.task] += score.stderr * scale
        parts += 1
    return math.hypot(*by_task.values()) / parts * 100.0
