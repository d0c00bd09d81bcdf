"""Statistics of paired numbers: two runs over the same documents, two versions over the same models. Pure.

Counts and floats in, numbers out. Written out here because the hub installs no numerical library; the tests hold them
against scipy's.
"""

import math
import statistics
from bisect import bisect_right, insort
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

LEVEL = 0.95
"""Of confidence intervals."""

MANY = 500
"""Degrees of freedom from which Student's t is taken from the normal distribution by its first correction."""


class Estimate(NamedTuple):
    value: float
    stderr: float | None
    """Of the mean, from the sample's standard deviation; None for a single number."""


def mean(values: Sequence[float]) -> Estimate:
    """The mean and its standard error: as lm-eval's `mean` and `mean_stderr` give them."""
    count = len(values)
    average = math.fsum(values) / count
    if count < 2:
        return Estimate(average, None)
    variance = math.fsum((value - average) ** 2 for value in values) / (count - 1)
    return Estimate(average, math.sqrt(variance / count))


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Mean of the differences document by document, and its standard error.

    What both find easy or both find hard cancels out, so it is much smaller than the standard error of either score
    (Miller 2024, "Adding Error Bars to Evals", arXiv:2411.00640, section 4.2).
    """
    return mean([a - b for a, b in zip(ours, theirs, strict=True)])


def mcnemar_exact(only_ours: int, only_theirs: int) -> float:
    """Two-sided exact p of McNemar's test, from the documents that only one of the two runs got right.

    If neither is better, each of the n discordant documents falls to either side like a coin: twice the smaller tail
    of a binomial(n, 1/2), at most 1 (McNemar 1947; the exact conditional form as in Fagerland, Lydersen and Laake
    2013, "The McNemar test for binary matched-pairs data", BMC Medical Research Methodology 13:91).
    """
    discordant = only_ours + only_theirs
    tail = sum(math.comb(discordant, count) for count in range(min(only_ours, only_theirs) + 1))
    return min(1.0, 2 * tail / (1 << discordant))


def mcnemar_worse(only_ours: int, only_theirs: int) -> float:
    """One-sided exact p of McNemar's test, that ours is worse: so few of the discordant documents are only ours.

    The lower tail of a binomial(n, 1/2); see `mcnemar_exact`.
    """
    discordant = only_ours + only_theirs
    return sum(math.comb(discordant, count) for count in range(only_ours + 1)) / (1 << discordant)


def chance_of_less(value: float, stderr: float) -> float:
    """One-sided p of a difference this low where there is none: the normal distribution's lower tail."""
    if not stderr:
        return 0.0 if value < 0 else 1.0
    return statistics.NormalDist().cdf(value / stderr)


def holm(chances: Sequence[float]) -> list[float]:
    """P-values corrected for being several, so that at most one in 1/alpha families has any wrong rejection.

    Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6.
    """
    order = sorted(range(len(chances)), key=chances.__getitem__)
    corrected = [1.0] * len(chances)
    largest = 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(chances) - place) * chances[index]))
        corrected[index] = largest
    return corrected


def confidence_interval(estimate: Estimate, count: int, level: float = LEVEL) -> tuple[float, float] | None:
    """Student's interval around the mean of `count` numbers; None where one number tells nothing of the spread.

    Half its width is t(count - 1) times the standard error (Student 1908). Over models: how the mean would move with
    other models of the same kind, not with other documents.
    """
    if estimate.stderr is None or count < 2:
        return None
    half = student_quantile(count - 1, level) * estimate.stderr
    return estimate.value - half, estimate.value + half


@lru_cache(maxsize=1024)
def student_quantile(degrees: int, level: float = LEVEL) -> float:
    """The t that Student's distribution with so many degrees of freedom stays within, on both sides, with `level`."""
    if degrees > MANY:
        # Abramowitz and Stegun 1964, 26.7.5, its first two terms: within 2e-5 here.
        z = statistics.NormalDist().inv_cdf(0.5 + level / 2)
        return z + (z**3 + z) / (4 * degrees)
    low, high = 0.0, 1.0
    while _within(high, degrees) < level:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < level else (low, middle)
    return (low + high) / 2


def _within(t: float, degrees: int) -> float:
    """Probability of -t to t under Student's distribution: the finite sums of Abramowitz and Stegun 1964, 26.7.3-4."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = (cosine, cosine if degrees > 1 else 0.0) if odd else (1.0, 1.0)
    for step in range(2 + odd, degrees, 2):
        term *= cosine**2 * (step - 1) / step
        total += term
    return (angle + sine * total) * 2 / math.pi if odd else sine * total


def pearson(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Pearson's r; None where one of the two never varies, or there are fewer than two pairs."""
    try:
        return max(-1.0, min(1.0, statistics.correlation(first, second)))
    except statistics.StatisticsError:
        return None


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rho: Pearson's r of the ranks, equal numbers sharing the mean of theirs (Spearman 1904)."""
    return pearson(mean_ranks(first), mean_ranks(second))


def mean_ranks(values: Sequence[float]) -> list[float]:
    """Rank of each number, 1 for the smallest; equal ones share the mean of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for place in order[start : end + 1]:
            ranks[place] = (start + end) / 2 + 1
        start = end + 1
    return ranks


def kendall(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b: of all pairs, those in the same order less those turned round, corrected for ties.

    None where one of the two never varies. Kendall 1945, "The treatment of ties in ranking problems", Biometrika 33;
    discordant pairs are counted in the order of the first, as Knight 1966 does.
    """
    pairs = sorted(zip(first, second, strict=True))
    every = _pairs_of(len(pairs))
    tied_first, tied_second = _tied([a for a, _ in pairs]), _tied([b for _, b in pairs])
    spread = math.sqrt(every - tied_first) * math.sqrt(every - tied_second)
    if not spread:
        return None
    discordant = 0
    seen: list[float] = []
    for count, (_, b) in enumerate(pairs):
        # Of those before it: larger in the second. Ties of the first stand in the order of the second, so none counts.
        discordant += count - bisect_right(seen, b)
        insort(seen, b)
    concordant = every - tied_first - tied_second + _tied(pairs) - discordant
    return (concordant - discordant) / spread


def _tied(values: Sequence[object]) -> int:
    counts: dict[object, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return sum(_pairs_of(count) for count in counts.values())


def _pairs_of(count: int) -> int:
    return count * (count - 1) // 2
