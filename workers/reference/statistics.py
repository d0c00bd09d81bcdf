"""Paired statistics of two runs over the same documents. Pure; counts and floats in, numbers out."""

import math
from collections.abc import Sequence
from typing import NamedTuple


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
