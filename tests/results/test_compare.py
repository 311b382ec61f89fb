"""Paired comparisons of results: counts by hand, tests against scipy, and what cannot be compared."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from harness.errors import InvalidInput
from harness.results.compare import compare
from harness.results.record import Result, Verdicts
from harness.results.stats import paired_difference
from tests.results.records import make_result


def verdicts(robust: list[int], *, first: int = 0, classes: int = 3) -> Verdicts:
    n = len(robust)
    index = np.arange(first, first + n)
    zeros = np.zeros(n, np.int64)
    return Verdicts(index, index % classes, index % classes, np.array(robust, bool), zeros - 1, zeros, zeros, zeros)


def evaluation(name: str, robust: list[int], *, first: int = 0, **facts: object) -> tuple[Result, Verdicts]:
    made = make_result(name, robust=sum(robust), clean=len(robust), n=len(robust), size=100, **facts)  # type: ignore[arg-type]
    return made, verdicts(robust, first=first)


def test_a_pair_is_counted_sample_by_sample() -> None:
    a = [1, 1, 1, 1, 1, 1, 0, 0, 1, 0]
    b = [1, 1, 0, 0, 0, 0, 1, 0, 0, 0]
    (pair,) = compare([evaluation("a", a), evaluation("b", b)]).pairs
    assert (pair.both, pair.only_first, pair.only_second, pair.neither) == (2, 5, 1, 2)
    assert pair.difference == pytest.approx(0.4)
    assert pair.p_value == pair.adjusted == pytest.approx(binomtest(5, 6, 0.5).pvalue)
    assert not pair.significant
    assert pair.first_indices.tolist() == [2, 3, 4, 5, 8]
    assert pair.second_indices.tolist() == [6]


def test_only_common_samples_count() -> None:
    comparison = compare([evaluation("a", [1] * 8), evaluation("b", [0] * 8, first=5, data="e" * 64)])
    (pair,) = comparison.pairs
    assert (pair.n, pair.only_first, pair.first_indices.tolist()) == (3, 3, [5, 6, 7])
    assert "3 or more are common" in comparison.notes[0]


def test_several_pairs_are_corrected_for_their_number() -> None:
    a, b, c = [1] * 7 + [0] * 3, [0] * 10, [1] * 6 + [0] * 4
    comparison = compare([evaluation("a", a), evaluation("b", b), evaluation("c", c)])
    assert [(pair.first, pair.second) for pair in comparison.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    first, second, third = comparison.pairs
    assert first.adjusted == pytest.approx(3 * first.p_value)
    assert third.adjusted == pytest.approx(2 * third.p_value)
    assert first.p_value < third.p_value < second.p_value
    assert first.significant


def test_results_of_one_name_are_told_apart() -> None:
    same = [evaluation("a", [1, 0], suite="pgd"), evaluation("a", [1, 1], suite="autoattack")]
    comparison = compare(same)
    assert comparison.labels == ("a (pgd, seed 0)", "a (autoattack, seed 0)")
    assert "the suites differ (autoattack, pgd)" in comparison.notes[0]
    assert compare([same[0], same[0]]).labels == ("a (pgd, seed 0) [1]", "a (pgd, seed 0) [2]")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (evaluation("b", [1, 0], threat="Linf:0.1"), "one threat model, got Linf:0.1 and Linf:0.15"),
        (evaluation("b", [1, 0], dataset="mnist"), "one data set, got digits test and mnist test"),
        (evaluation("b", [1, 0], first=10), "no samples in common"),
        ((make_result("b", n=2, robust=1, clean=2), verdicts([1, 0], classes=1)), "other labels"),
    ],
)
def test_what_cannot_be_compared_is_refused(second: tuple[Result, Verdicts], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        compare([evaluation("a", [1, 1]), second])


def test_one_result_is_no_comparison() -> None:
    with pytest.raises(InvalidInput, match="at least two results, got 1"):
        compare([evaluation("a", [1])])


def test_the_interval_of_a_paired_difference() -> None:
    """Cells 12, 2 of 100: by hand (11.5 + 2.5 with the halves, 102 samples)."""
    low, high = paired_difference(11, 2, 100)
    spread = 1.959964 * np.sqrt(14 - 81 / 102) / 102
    assert (low, high) == (pytest.approx(9 / 102 - spread, abs=1e-6), pytest.approx(9 / 102 + spread, abs=1e-6))
    assert paired_difference(0, 0, 10)[0] < 0 < paired_difference(0, 0, 10)[1]
    with pytest.raises(InvalidInput, match="paired counts"):
        paired_difference(6, 5, 10)


def test_the_interval_keeps_its_level() -> None:
    """Over 2,000 seeded draws at two settings, the true difference is inside at least 94 % of the intervals."""
    generator = np.random.default_rng(0)
    for n, probabilities in ((50, (0.6, 0.1, 0.02, 0.28)), (200, (0.3, 0.05, 0.05, 0.6))):
        truth = probabilities[1] - probabilities[2]
        cells = generator.multinomial(n, probabilities, size=2000)
        inside = [low <= truth <= high for low, high in (paired_difference(c[1], c[2], n) for c in cells)]
        assert np.mean(inside) >= 0.94
