"""Intervals and tests against published or hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import bdtr, ndtr
from scipy.stats import binomtest

from harness.errors import InvalidInput
from harness.results.stats import holm, mcnemar, mcnemar_p, paired_bootstrap, unpaired_p, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_published(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_of_scipy(counts: tuple[int, int]) -> None:
    assert wilson(*counts) == pytest.approx(tuple(binomtest(*counts).proportion_ci(method="wilson")), abs=1e-9)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (2, 1), (-1, 3)])
def test_wilson_refuses(successes: int, n: int) -> None:
    with pytest.raises(InvalidInput, match="proportion"):
        wilson(successes, n)


COUNTS = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), min_size=1, max_size=20)


@given(COUNTS)
def test_tests_of_scipy(counts: list[tuple[int, int]]) -> None:
    first, second = np.array(counts).T
    paired = 2 * bdtr(np.minimum(first, second).astype(float), first + second, 0.5)
    assert mcnemar_p(first, second) == pytest.approx(np.minimum(1, paired), rel=1e-9, abs=1e-300)
    spread = np.sqrt((first + second) * (1 - (first + second) / 20_000))
    z = np.maximum(0, np.abs(first - second) - 1) / np.where(spread > 0, spread, 1)
    assert unpaired_p(first, second, 10_000) == pytest.approx(2 * ndtr(-z), rel=1e-9, abs=1e-300)


def test_mcnemar_by_hand() -> None:
    first = np.array([1, 1, 1, 1, 1, 1, 0, 1, 0, 0], dtype=bool)
    second = np.array([0, 0, 0, 0, 0, 0, 1, 1, 0, 0], dtype=bool)
    only_first, only_second, p_value = mcnemar(first, second)
    assert (only_first, only_second) == (6, 1)
    assert p_value == pytest.approx(2 * (1 + 7) / 2**7)
    assert mcnemar(second, first).p_value == p_value
    assert mcnemar(first, first) == (0, 0, 1.0)
    with pytest.raises(InvalidInput, match="one shape"):
        mcnemar(first, second[:5])


def test_bootstrap_of_a_constant_difference_is_sure() -> None:
    found = paired_bootstrap([0.5, 0.6, 0.7], [0.4, 0.5, 0.6], seed=0, resamples=999)
    assert (found.difference, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.p_value == pytest.approx(2 / 1000)


def test_bootstrap_interval_covers_what_theory_says() -> None:
    differences = np.random.default_rng(1).normal(0.3, 1.0, size=400)
    found = paired_bootstrap(differences, np.zeros(400), seed=2)
    half = 1.96 * differences.std() / 20
    assert found.low == pytest.approx(differences.mean() - half, abs=0.01)
    assert found.high == pytest.approx(differences.mean() + half, abs=0.01)


def test_bootstrap_of_no_difference_finds_none() -> None:
    verdicts = np.random.default_rng(0).random((3, 200)) < 0.5
    assert paired_bootstrap(verdicts, verdicts, seed=0, resamples=500).p_value == 1.0


def test_bootstrap_is_repeatable_and_resamples_samples_too() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.random((2, 3, 100)) < 0.5
    assert paired_bootstrap(first, second, seed=5, resamples=1200) == paired_bootstrap(
        first, second, seed=5, resamples=1200
    )
    by_seed_alone = paired_bootstrap(first.mean(1), second.mean(1), seed=5, resamples=1200)
    both = paired_bootstrap(first, second, seed=5, resamples=1200)
    assert both.high - both.low > by_seed_alone.high - by_seed_alone.low


def test_bootstrap_refuses() -> None:
    with pytest.raises(InvalidInput, match="shapes"):
        paired_bootstrap([0.1, 0.2], [0.1], seed=0)
    with pytest.raises(InvalidInput, match="shapes"):
        paired_bootstrap([], [], seed=0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.9, 0.8]) == (1.0, 1.0)
    assert holm([]) == ()
    with pytest.raises(InvalidInput, match="p-values"):
        holm([1.2])
