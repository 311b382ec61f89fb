"""Tests of mean differences: known special cases, exact ones, and how often they are wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from benchmarks.statistics import CASES, Case, level
from harness.errors import InvalidInput
from harness.results.stats import mcnemar
from harness.studies import statistics
from harness.studies.statistics import Difference, Rate


def rate(successes: int, n: int, bound: float, *, seeds: int = 1) -> Difference:
    """An accuracy less ``bound``, in points, the same for every seed."""
    bits = np.tile(np.arange(n) < successes, (seeds, 1))
    imagined = np.tile([100.0 - bound, -bound], (seeds, 1))
    return Difference(100.0 * bits - bound, imagined, Rate(1.0, -bound))


def pair(first: np.ndarray, second: np.ndarray) -> Difference:
    values = 100.0 * np.atleast_2d(first) - 100.0 * np.atleast_2d(second)
    return Difference(values, np.tile([100.0, -100.0], (len(values), 1)))


def bits(*shares: float, n: int = 500) -> np.ndarray:
    return np.array([np.arange(n) < share * n for share in shares])


def test_a_single_rate_at_one_seed_is_tested_exactly() -> None:
    # 0 of 600 is not less than 0.5 %, whatever an approximation says
    found = statistics.estimate(rate(0, 600, 0.5))
    assert found.p_value == pytest.approx(binomtest(0, 600, 0.005).pvalue)
    assert found.p_value == pytest.approx(0.083, abs=0.001)
    assert found.mean == pytest.approx(-0.5)
    exact = binomtest(0, 600).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((100 * exact.low - 0.5, 100 * exact.high - 0.5))
    assert found.low < 0 < found.high
    assert not found.for_other_seeds


def test_the_other_side_of_a_rate() -> None:
    """``5 >= robust(x)`` is ``robust(x) <= 5``, with the sign turned."""
    straight = rate(12, 300, 5)
    turned = Difference(-straight.values, -straight.imagined, Rate(-1.0, 5.0))
    one, other = statistics.estimate(straight), statistics.estimate(turned)
    assert one.p_value == other.p_value
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))
    assert statistics.equivalence(straight, 6) == pytest.approx(statistics.equivalence(turned, 6))


def test_two_rates_at_one_seed_are_no_surer_than_mcnemar() -> None:
    first, second = bits(0.31)[0], np.roll(bits(0.30)[0], 3)
    found = statistics.estimate(pair(first, second))
    assert found.p_value >= mcnemar(first, second).p_value
    clear = statistics.estimate(pair(bits(0.4)[0], bits(0.3)[0]))
    assert clear.p_value >= mcnemar(bits(0.4)[0], bits(0.3)[0]).p_value
    assert clear.p_value < 0.001
    assert statistics.estimate(pair(first, first)).p_value == 1


def test_one_seed_with_differences_of_many_sizes_is_the_t_test() -> None:
    values = np.random.default_rng(0).normal(3, 40, size=(1, 60))
    imagined = np.array([[100.0, -100.0]])
    known = ttest_1samp(np.hstack([values, imagined])[0], 0.0)
    found = statistics.estimate(Difference(values, imagined))
    assert found.p_value == pytest.approx(known.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(known.confidence_interval()))


def test_two_seeds_are_two_networks_and_both_must_agree() -> None:
    agreeing = statistics.estimate(pair(bits(0.5, 0.6), bits(0.3, 0.3)))
    assert not agreeing.for_other_seeds
    each = [statistics.estimate(pair(bits(share), bits(0.3))) for share in (0.5, 0.6)]
    assert agreeing.p_value == max(one.p_value for one in each)
    assert (agreeing.low, agreeing.high) == (min(e.low for e in each), max(e.high for e in each))
    assert statistics.estimate(pair(bits(0.5, 0.3), bits(0.3, 0.3))).p_value == 1


def test_three_seeds_are_more_conservative_than_images_and_than_seeds() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        first, second = (generator.random((3, 200)) < share + 0.05 * generator.normal() for share in (0.4, 0.3))
        difference = pair(first, second)
        found = statistics.estimate(difference)
        completed = np.hstack([difference.values, difference.imagined])
        assert found.for_other_seeds
        assert found.p_value >= ttest_1samp(completed.mean(axis=1), 0.0).pvalue
        assert found.p_value >= ttest_1samp(completed.mean(axis=0), 0.0).pvalue


def test_seeds_that_differ_as_wholes_are_so_many_numbers() -> None:
    by_seed = np.array([10.0, 20.0, 45.0])
    difference = Difference(np.repeat(by_seed[:, None], 40, axis=1), np.tile(by_seed[:, None], 2))
    known = ttest_1samp(by_seed, 0.0)
    found = statistics.estimate(difference)
    assert found.p_value == pytest.approx(known.pvalue, rel=1e-6)
    assert (found.low, found.high) == pytest.approx(tuple(known.confidence_interval()))


def test_p_value_and_interval_agree() -> None:
    generator = np.random.default_rng(1)
    for _ in range(30):
        first, second = (generator.random((3, 100)) < 0.5 + 0.1 * generator.normal() for _ in range(2))
        found = statistics.estimate(pair(first, second))
        assert (found.p_value < 0.05) == (not found.low <= 0 <= found.high)


def test_equivalence() -> None:
    same = pair(bits(0.5, 0.51, 0.5, n=2000), bits(0.5, 0.5, 0.5, n=2000))
    assert statistics.equivalence(same, 5) < 0.05
    assert statistics.equivalence(same, 0.5) > 0.05
    # what is not shown to differ is not shown to be equal
    few = pair(bits(0.5, 0.5, 0.5, n=10), np.roll(bits(0.5, 0.5, 0.5, n=10), 3, axis=1))
    assert statistics.estimate(few).p_value > 0.05
    assert statistics.equivalence(few, 5) > 0.05
    assert statistics.equivalence(rate(300, 600, 50), 5) == pytest.approx(
        max(binomtest(300, 600, share, side).pvalue for share, side in ((0.45, "greater"), (0.55, "less")))
    )
    apart = pair(bits(0.9, 0.9, 0.9), bits(0.5, 0.5, 0.5))
    assert statistics.equivalence(apart, 2) > 0.99
    with pytest.raises(InvalidInput, match="positive margin"):
        statistics.equivalence(same, 0)


def test_bounds_outside_of_what_a_rate_can_be() -> None:
    assert statistics.estimate(rate(5, 10, 0.0)).p_value < 0.001
    assert statistics.estimate(rate(0, 10, 0.0)).p_value == 1
    assert statistics.estimate(rate(5, 10, 105.0)).p_value < 0.001


def test_differences_that_fit_nothing() -> None:
    with pytest.raises(InvalidInput, match=r"values \[seeds, n\]"):
        Difference(np.zeros((2, 0)), np.zeros((2, 2)))
    with pytest.raises(InvalidInput, match=r"imagined values \[seeds, 2\]"):
        Difference(np.zeros((2, 3)), np.zeros((1, 2)))


def test_p_values_are_not_printed_smaller_than_can_be_vouched_for() -> None:
    assert [statistics.p_text(p) for p in (1e-9, 0.0009, 0.00123, 0.04567, 0.5, 1.0)] == [
        "< 0.001", "< 0.001", "0.0012", "0.046", "0.5", "1",
    ]  # fmt: skip


@pytest.mark.parametrize("case", [case for case in CASES if case.seeds > 2 and case.seed_spread == 0.3])
def test_the_level_is_kept(case: Case) -> None:
    """200 times no difference at all: a test at 5 % rejects up to 20 of them (99.8 %)."""
    assert level(case, repetitions=200, seed=0) <= 20 / 200
