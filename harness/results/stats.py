"""Intervals and paired tests.

They need few functions, and importing scipy takes as long as a whole leaderboard, so that these stand here.
"""

from __future__ import annotations

from math import erfc, log, sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from harness.errors import InvalidInput

__all__ = [
    "Bootstrap",
    "Floats",
    "Interval",
    "McNemar",
    "holm",
    "mcnemar",
    "mcnemar_p",
    "paired_bootstrap",
    "paired_difference",
    "unpaired_p",
    "wilson",
]

Floats = np.ndarray[Any, np.dtype[np.float64]]


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class McNemar(NamedTuple):
    """How two classifiers differ on the same samples, and how likely that is by chance alone."""

    only_first: int
    only_second: int
    p_value: float


class Bootstrap(NamedTuple):
    """A mean paired difference with a percentile interval and a two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a proportion (Wilson 1927).

    Raises:
        InvalidInput: n below 1 or successes outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise InvalidInput(f"a proportion needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    z, share = NormalDist().inv_cdf((1 + confidence) / 2), successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2) / (1 + z * z / n)
    return Interval(0.0 if successes == 0 else middle - half, 1.0 if successes == n else middle + half)


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """Exact McNemar test (McNemar 1947; binomial form) on two bool arrays ``[n]`` over the same samples.

    Raises:
        InvalidInput: arrays of different shapes.
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if a.shape != b.shape or a.ndim != 1:
        raise InvalidInput(f"a paired test needs two arrays of one shape [n], got {a.shape} and {b.shape}")
    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    return McNemar(only_first, only_second, float(mcnemar_p(only_first, only_second)))


def mcnemar_p(only_first: ArrayLike, only_second: ArrayLike) -> Floats:
    """Two-sided p-values of the exact McNemar test for arrays of counts of any shape; 1 where both are zero."""
    first, second = np.asarray(only_first, dtype=np.int64), np.asarray(only_second, dtype=np.int64)
    fewer, both = np.minimum(first, second), first + second
    counts, shape = fewer.ravel(), both.shape
    coins, order = both.ravel(), np.argsort(both, axis=None, kind="stable")
    tails = np.empty(len(order))
    # the many pairs of a board have few different sums
    for alike in np.split(order, np.flatnonzero(np.diff(coins[order])) + 1) if len(order) else ():
        heads = counts[alike]
        tails[alike] = _tails_of_fair_coins(int(coins[alike[0]]), int(heads.max()))[heads]
    return np.asarray(np.minimum(1.0, 2 * tails.reshape(shape)), dtype=np.float64)


def _tails_of_fair_coins(n: int, most: int) -> Floats:
    """The probabilities ``[most + 1]`` of at most 0, 1, ..., ``most`` heads among ``n`` fair coins."""
    heads = np.arange(1, most + 1)
    ratios = np.log(n - heads + 1) - np.log(heads)  # of each probability of exactly so many heads to the one before
    exactly = np.exp(np.concatenate([[0.0], np.cumsum(ratios)]) - n * log(2))
    return np.asarray(np.cumsum(exactly), dtype=np.float64)


def unpaired_p(first: ArrayLike, second: ArrayLike, n: int) -> Floats:
    """Two-sided p-values that two counts of ``n`` samples each differ by chance alone, for arrays of any shape.

    The z-test of two independent proportions with Yates's correction, which comes near to Fisher's exact test.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    pooled = (a + b) / (2 * n)
    spread = np.sqrt(2 * n * pooled * (1 - pooled))
    z = np.maximum(0.0, np.abs(a - b) - 1) / np.where(spread > 0, spread, 1.0)
    tails = [erfc(value / sqrt(2)) for value in z.ravel().tolist()]  # twice the upper tail of a normal distribution
    return np.asarray(tails, dtype=np.float64).reshape(z.shape)


def paired_difference(only_first: int, only_second: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Interval of the difference of two paired proportions, ``(only_first - only_second) / n``.

    Wald's interval after adding one half to each of the four cells (Agresti & Min 2005), which keeps its level for
    small counts as well.

    Raises:
        InvalidInput: negative counts, or more than n.
    """
    if only_first < 0 or only_second < 0 or only_first + only_second > n or n < 1:
        raise InvalidInput(f"paired counts lie in 0..n, got {only_first} and {only_second} of {n}")
    first, second, size = only_first + 0.5, only_second + 0.5, n + 2
    difference = (first - second) / size
    spread = np.sqrt((first + second) - (first - second) ** 2 / size) / size
    reach = float(NormalDist().inv_cdf((1 + confidence) / 2) * spread)
    return Interval(max(-1.0, difference - reach), min(1.0, difference + reach))


def paired_bootstrap(
    first: ArrayLike, second: ArrayLike, *, seed: int, resamples: int = 10_000, confidence: float = 0.95
) -> Bootstrap:
    """Bootstrap of the mean of ``first - second`` over seeds, and over samples where there are any.

    Args:
        first, second: ``[seeds]`` accuracies, or ``[seeds, n]`` verdicts on the same samples; then seeds
            and samples are both drawn with replacement (Owen 2007, "The pigeonhole bootstrap").
        seed: of the resampling.

    Raises:
        InvalidInput: shapes that differ, or nothing to resample.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim not in (1, 2) or a.size == 0:
        raise InvalidInput(f"a paired bootstrap needs shapes [seeds] or [seeds, n], got {a.shape} and {b.shape}")
    differences = (a - b).reshape(len(a), -1)
    seeds, n = differences.shape
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    for begin in range(0, resamples, 500):  # in pieces, so that 10,000 samples fit into memory
        size = min(500, resamples - begin)
        by_seed = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=size)
        by_sample = generator.multinomial(n, np.full(n, 1 / n), size=size)
        means[begin : begin + size] = ((by_seed @ differences) * by_sample).sum(axis=1) / (seeds * n)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    tail = min((means <= 0).sum(), (means >= 0).sum())
    p_value = min(1.0, 2 * (int(tail) + 1) / (resamples + 1))
    return Bootstrap(float(differences.mean()), float(low), float(high), p_value)


def holm(p_values: ArrayLike) -> tuple[float, ...]:
    """Holm's (1979) step-down correction of p-values ``[k]``: adjusted p-values in the order given.

    Raises:
        InvalidInput: a p-value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise InvalidInput(f"p-values lie in [0, 1], got {p[~((p >= 0) & (p <= 1))][:5].tolist()}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]))
    return tuple(adjusted.tolist())
