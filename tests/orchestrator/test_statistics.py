"""Statistics of paired numbers, against numbers worked out by hand and against scipy's."""

import math
import random

import pytest

from orchestrator.statistics import (
    Estimate,
    confidence_interval,
    kendall,
    mcnemar_exact,
    mean,
    mean_ranks,
    paired_difference,
    pearson,
    spearman,
    student_quantile,
)


def test_mcnemar_counts_the_two_tails_of_a_fair_coin() -> None:
    # 2 against 8: (C(10,0) + C(10,1) + C(10,2)) / 2^10 = (1 + 10 + 45) / 1024, twice.
    assert mcnemar_exact(2, 8) == pytest.approx(112 / 1024)
    assert mcnemar_exact(8, 2) == mcnemar_exact(2, 8)
    # 0 against 5: one sequence of 32 on either side.
    assert mcnemar_exact(0, 5) == pytest.approx(2 / 32)


def test_mcnemar_never_exceeds_one_and_takes_any_count() -> None:
    assert mcnemar_exact(0, 0) == mcnemar_exact(1, 0) == mcnemar_exact(3, 3) == 1.0
    assert mcnemar_exact(5000, 5400) == pytest.approx(math.erfc(399 / math.sqrt(2 * 10400)), rel=0.01)


def test_the_mean_s_standard_error_is_lm_eval_s() -> None:
    # 1, 0, 0, 1, 1: mean 0.6, variance 1.2 / 4 = 0.3, standard error sqrt(0.3 / 5).
    assert mean([1, 0, 0, 1, 1]) == pytest.approx((0.6, math.sqrt(0.06)))
    assert mean([0.5]) == (0.5, None)


def test_a_paired_difference_has_only_the_error_of_what_differs() -> None:
    # One of four differs: mean 1/4, squared deviations 9/16 + 3/16 over 3, by 4: exactly 1/16.
    assert paired_difference([1, 1, 0, 0], [0, 1, 0, 0]) == pytest.approx((0.25, 0.25))
    assert paired_difference([1, 0, 1], [1, 0, 1]) == (0.0, 0.0)


@pytest.mark.parametrize(("degrees", "t"), [(1, 12.7062), (2, 4.30265), (9, 2.26216), (30, 2.04227), (500, 1.96472)])
def test_students_quantiles_are_those_of_the_tables(degrees: int, t: float) -> None:
    assert student_quantile(degrees) == pytest.approx(t, abs=1e-5)


def test_students_quantile_has_no_step_where_it_is_taken_from_the_normal_distribution() -> None:
    assert student_quantile(501) == pytest.approx(student_quantile(500), abs=3e-5)
    assert student_quantile(501) < student_quantile(500)


def test_one_number_has_no_interval() -> None:
    assert confidence_interval(Estimate(3.0, None), 1) is None
    low, high = confidence_interval(Estimate(3.0, 0.5), 10) or (0, 0)
    assert (low, high) == pytest.approx((3 - 2.26216 * 0.5, 3 + 2.26216 * 0.5), abs=1e-5)


def test_correlations_are_scipy_s_with_ties_and_without() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy comes with the harness")
    drawn = random.Random(5)
    for count, values in ((2, 100), (7, 3), (50, 8), (300, 10_000)):
        first = [drawn.randrange(values) / 7 for _ in range(count)]
        second = [a + drawn.randrange(values) / 5 for a in first]
        first[0], second[0] = -1.0, -1.0  # so that neither is constant
        assert pearson(first, second) == pytest.approx(stats.pearsonr(first, second).statistic)
        assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
        assert kendall(first, second) == pytest.approx(stats.kendalltau(first, second).statistic)


def test_a_number_that_never_varies_correlates_with_nothing() -> None:
    for correlation in (pearson, spearman, kendall):
        assert correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
        assert correlation([], []) is None
        assert correlation([1.0], [2.0]) is None


def test_equal_numbers_share_the_mean_of_their_ranks() -> None:
    assert mean_ranks([5.0, 1.0, 5.0, 3.0]) == [3.5, 1.0, 3.5, 2.0]


def test_one_exchange_of_neighbours_turns_one_pair_round() -> None:
    assert kendall([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)
