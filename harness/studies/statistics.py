"""Tests of a mean difference between networks, measured on the same images, for one training run or for several.

A difference is a matrix ``[seeds, n]`` in percent points: left side less right side of a claim, for every training
run (seed) and image. Whether its mean is zero is a question about other images, and about other training runs where
there are enough of them:

- *One or two seeds* say nothing reliable of others. What is tested is a statement about these networks: with one
  network an exact binomial test where there is one (a single rate, or two rates against each other: McNemar), else
  Student's t over images; with two networks the same for each, and the larger p-value counts (the claim must hold
  for both).
- *Three seeds or more*: images and seeds are both draws from many. The squared half-width of the interval is the sum
  of the squared half-widths of two models, one in which images are the unit and one in which seeds are (Student's t
  with one degree of freedom fewer than there are seeds). It is more conservative than either of them, and than a sum
  of variances with Satterthwaite's degrees of freedom, which decides too much with few seeds. The p-value belongs to
  this interval: the level at which it just touches the null value.

What did not happen in the sample has no variance (0 of 3 images robust would pass for certainly none). So wherever a
variance is estimated two imagined images are added, one that speaks as clearly as can be for the left side and one
for the right (after Agresti & Min 2005, "Simple improved confidence intervals for comparing matched proportions").

`benchmarks/statistics.py` measures by simulation how often true null hypotheses are rejected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit
from scipy.stats import binomtest

from harness.errors import InvalidInput

__all__ = [
    "SEEDS_FOR_OTHERS",
    "Difference",
    "Estimate",
    "Matrix",
    "Rate",
    "beyond",
    "equivalence",
    "estimate",
    "p_text",
    "p_value",
]

SEEDS_FOR_OTHERS = 3
"""So many seeds are needed to say something of other seeds."""

Matrix = np.ndarray[Any, np.dtype[np.float64]]
Alternative = Literal["two-sided", "less", "greater"]

_CONFIDENCE = 0.95
_SMALLEST_P = 1e-12


@dataclass(frozen=True)
class Rate:
    """A difference that is one accuracy times ``factor`` plus ``constant``, in percent points."""

    factor: float
    constant: float


@dataclass(frozen=True, eq=False)
class Difference:
    """What is tested.

    Attributes:
        values: ``[seeds, n]`` in percent points.
        imagined: ``[seeds, 2]`` the largest and the smallest value that an image can have.
        rate: how the values come from one accuracy, where they do.

    Raises:
        InvalidInput: no values, or shapes that do not fit.
    """

    values: Matrix
    imagined: Matrix
    rate: Rate | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.size == 0 or self.imagined.shape != (len(self.values), 2):
            raise InvalidInput(
                "a difference needs values [seeds, n] and imagined values [seeds, 2], got shapes "
                f"{list(self.values.shape)} and {list(self.imagined.shape)}"
            )

    @property
    def seeds(self) -> int:
        """How many training runs were measured."""
        return len(self.values)

    @property
    def for_other_seeds(self) -> bool:
        """Whether there are enough seeds to say something of others; else a test is about these networks."""
        return self.seeds >= SEEDS_FOR_OTHERS

    def of_seed(self, position: int) -> Difference:
        """One network alone."""
        rows = slice(position, position + 1)
        return Difference(self.values[rows], self.imagined[rows], self.rate)


@dataclass(frozen=True)
class Estimate:
    """A mean difference in percent points, its 95 % interval, and the two-sided p-value of zero.

    Attributes:
        for_other_seeds: whether interval and p-value are about other training runs as well as other images.
    """

    mean: float
    low: float
    high: float
    p_value: float
    for_other_seeds: bool


def estimate(difference: Difference) -> Estimate:
    """Estimate the mean difference, and test whether it is zero."""
    low, high = _interval(difference)
    mean = float(difference.values.mean())
    return Estimate(mean, low, high, p_value(difference), difference.for_other_seeds)


def p_value(difference: Difference, null: float = 0.0, alternative: Alternative = "two-sided") -> float:
    """p-value of the null hypothesis that the mean is ``null``, or on its wrong side."""
    if difference.for_other_seeds:
        return _Spread.of(difference).p_value(null, alternative)
    return max(_p_of_one(difference.of_seed(position), null, alternative) for position in range(difference.seeds))


def equivalence(difference: Difference, margin: float) -> float:
    """p-value of two one-sided tests that the mean difference is at least ``margin`` points from zero, above or
    below (Schuirmann 1987): small where the two sides are equal up to the margin.

    Raises:
        InvalidInput: a margin that is not positive.
    """
    if not margin > 0:
        raise InvalidInput(f"equivalence needs a positive margin in percent points, got {margin}")
    return max(p_value(difference, -margin, "greater"), p_value(difference, margin, "less"))


def beyond(difference: Difference, margin: float) -> float:
    """One-sided p-value of the mean difference being at most ``margin`` points from zero: small where it is clearly
    further away, on the side of the estimate."""
    if difference.values.mean() > 0:
        return p_value(difference, margin, "greater")
    return p_value(difference, -margin, "less")


def p_text(p_value: float) -> str:
    """A p-value as it is printed: not smaller than such a model can vouch for."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.2g}"


@dataclass(frozen=True)
class _Spread:
    """Mean of a difference with its imagined images, and what it varies by.

    Attributes:
        of_images: variance of the mean over other images, from n of them. of_seeds: over other seeds, from k.
    """

    mean: float
    of_images: float
    n: int
    of_seeds: float
    k: int

    @classmethod
    def of(cls, difference: Difference) -> _Spread:
        completed = np.hstack([difference.values, difference.imagined])
        by_image, by_seed = completed.mean(axis=0), completed.mean(axis=1)
        n, k = len(by_image), len(by_seed)
        of_seeds = float(by_seed.var(ddof=1)) / k if difference.for_other_seeds else 0.0
        return cls(float(completed.mean()), float(by_image.var(ddof=1)) / n, n, of_seeds, k)

    def reach(self, level: float) -> float:
        """Half-width of the interval: the squared half-widths of both models added."""
        of_images = stdtrit(self.n - 1, level / 2) ** 2 * self.of_images
        of_seeds = stdtrit(self.k - 1, level / 2) ** 2 * self.of_seeds if self.of_seeds else 0.0
        return math.sqrt(of_images + of_seeds)

    def p_value(self, null: float, alternative: Alternative) -> float:
        """The level at which the interval just touches ``null``; half of it where one side only counts."""
        distance = self.mean - null
        if abs(distance) >= self.reach(_SMALLEST_P):
            two_sided = _SMALLEST_P
        else:
            exponent = brentq(lambda e: self.reach(math.exp(e)) - abs(distance), math.log(_SMALLEST_P), 0.0)
            two_sided = math.exp(exponent)
        if alternative == "two-sided":
            return two_sided
        expected = distance > 0 if alternative == "greater" else distance < 0
        return two_sided / 2 if expected else 1 - two_sided / 2


def _p_of_one(difference: Difference, null: float, alternative: Alternative) -> float:
    if difference.rate is not None:
        return _p_of_rate(difference, difference.rate, null, alternative)
    shifted = difference.values[0] - null
    by_images = _Spread.of(difference).p_value(null, alternative)
    if len(set(np.abs(shifted[shifted != 0]).round(9))) > 1:
        return by_images
    # all differences are of one size: McNemar's test
    wins, losses = int((shifted > 0).sum()), int((shifted < 0).sum())
    exact = float(binomtest(wins, wins + losses, 0.5, alternative).pvalue) if wins + losses else 1.0
    return max(exact, by_images)


def _p_of_rate(difference: Difference, rate: Rate, null: float, alternative: Alternative) -> float:
    successes, n = _successes(difference, rate)
    share = min(max((null - rate.constant) / (100 * rate.factor), 0.0), 1.0)
    turned: dict[Alternative, Alternative] = {"less": "greater", "greater": "less", "two-sided": "two-sided"}
    return float(binomtest(successes, n, share, alternative if rate.factor > 0 else turned[alternative]).pvalue)


def _successes(difference: Difference, rate: Rate) -> tuple[int, int]:
    right = (difference.values[0] - rate.constant) / (100 * rate.factor)
    return round(float(right.sum())), len(right)


def _interval(difference: Difference) -> tuple[float, float]:
    if difference.for_other_seeds:
        return _around(_Spread.of(difference))
    bounds = [_interval_of_one(difference.of_seed(position)) for position in range(difference.seeds)]
    return min(low for low, _ in bounds), max(high for _, high in bounds)


def _interval_of_one(difference: Difference) -> tuple[float, float]:
    rate = difference.rate
    if rate is None:
        return _around(_Spread.of(difference))
    successes, n = _successes(difference, rate)
    exact = binomtest(successes, n).proportion_ci(_CONFIDENCE, method="exact")
    low, high = sorted(100 * rate.factor * bound + rate.constant for bound in (exact.low, exact.high))
    return float(low), float(high)


def _around(spread: _Spread) -> tuple[float, float]:
    reach = spread.reach(1 - _CONFIDENCE)
    return spread.mean - reach, spread.mean + reach
