"""The paired statistics of the parity report, against numbers worked out by hand."""

import math

import pytest

from workers.reference.statistics import mcnemar_exact, mean, paired_difference


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
