"""How many samples of a finite population are broken, from those that were attacked so far, with an interval.

The survivors of a first phase are put in order: those with the smallest margins first, all of which are attacked (the
census), then the others in a seeded random order. After any number of them `Bounds` says between which numbers the
broken ones lie. The interval holds its level however often it is looked at and whenever one stops, and whatever the
population looks like (`docs/estimate.md` derives it): Waudby-Smith & Ramdas 2020, "Confidence sequences for sampling
without replacement" (arXiv 2006.04347), with a beta-binomial prior.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from harness.errors import InvalidInput

__all__ = ["Bounds", "Order", "first_size", "log_ratio", "next_size", "order"]

Floats = np.ndarray[Any, np.dtype[np.float64]]
Index = np.ndarray[Any, np.dtype[np.int64]]

PRIOR = (0.5, 50.0)
"""A beta distribution of the share of survivors that the rest of a suite breaks: usually less than one in a hundred.
It decides how soon the interval is narrow, and never whether it holds."""

_CENSUS, _FEWEST_CENSUS = 0.01, 10
_GROWTH, _FEWEST_MORE = 0.1, 10


class Order(NamedTuple):
    """In which order to attack survivors: int64 ``[s]``, of which the first ``census`` are no random choice."""

    positions: Index
    census: int


def order(margins: ArrayLike, *, seed: int) -> Order:
    """Survivors by what is known of them.

    Args:
        margins: ``[s]``, small where a sample is likely to be broken. They decide the cost and never the level.
        seed: of the random order.
    """
    values = np.asarray(margins, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise InvalidInput(f"margins must be finite numbers [s], got shape {list(values.shape)}")
    by_margin = np.argsort(values, kind="stable").astype(np.int64)
    census = min(len(values), max(_FEWEST_CENSUS, round(_CENSUS * len(values))))
    digest = hashlib.blake2b(f"estimate/{seed}".encode(), digest_size=8).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "little"))
    return Order(np.concatenate([by_margin[:census], generator.permutation(by_margin[census:])]), census)


def log_ratio(size: int, seen: int, broken: int) -> Floats:
    """Of every number of broken samples in a population, the log of the ratio of its prior and posterior probability.

    For the true number, the mean of this ratio is at most 1 and does not grow as samples are seen one after the other
    (a supermartingale), so that by Ville's inequality it ever reaches ``1 / level`` with at most that probability.

    Args:
        size: samples in the population. seen: of them, drawn without replacement. broken: of these.

    Returns:
        float64 ``[size + 1]``; infinite where the number is impossible.
    """
    if not 0 <= broken <= seen <= size:
        raise InvalidInput(f"expected 0 <= broken <= seen <= size, got {broken}, {seen}, {size}")
    from scipy.special import betaln, gammaln

    numbers = np.arange(size + 1)
    possible = (numbers >= broken) & (size - numbers >= seen - broken)
    of = numbers[possible].astype(np.float64)
    whole = size - of
    likelihood = gammaln(of + 1) - gammaln(of - broken + 1) + gammaln(whole + 1) - gammaln(whole - seen + broken + 1)
    likelihood -= gammaln(size + 1) - gammaln(size - seen + 1)
    before, after = PRIOR
    ratio = np.full(size + 1, np.inf)
    ratio[possible] = betaln(before + broken, after + seen - broken) - betaln(before, after) - likelihood
    return ratio


@dataclass
class Bounds:
    """Between which numbers the broken samples among ``size`` survivors lie.

    Args:
        size: how many survivors. census: how many of them come first, chosen by margin.
        confidence: of the interval, at all times together.
    """

    size: int
    census: int
    confidence: float = 0.95
    seen: int = 0
    broken: int = 0
    low: int = field(init=False, default=0)
    high: int = field(init=False)
    _broken_in_census: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if not 0 <= self.census <= self.size or not 0 < self.confidence < 1:
            raise InvalidInput(f"expected 0 <= census <= size, got {self.census} of {self.size}")
        self.high = self.size

    def see(self, verdicts: ArrayLike) -> None:
        """Take in the next samples of the order: bool ``[m]``, True where the suite broke it.

        Raises:
            InvalidInput: more than there are.
        """
        broken = np.asarray(verdicts, dtype=bool)
        if self.seen + len(broken) > self.size:
            raise InvalidInput(f"{self.seen} of {self.size} samples were seen, so that {len(broken)} are too many")
        left = max(0, self.census - self.seen)
        self._broken_in_census += int(broken[:left].sum())
        self.seen += len(broken)
        self.broken += int(broken.sum())
        # what is certain, whatever was drawn at random
        self.low, self.high = max(self.low, self.broken), min(self.high, self.size - self.seen + self.broken)
        if self.seen <= self.census:
            return
        drawn, hits = self.seen - self.census, self.broken - self._broken_in_census
        ratio = log_ratio(self.size - self.census, drawn, hits)
        kept = np.flatnonzero(ratio < -np.log1p(-self.confidence)) + self._broken_in_census
        # an interval that was true at an earlier look stays true
        if len(kept):
            self.low, self.high = max(self.low, int(kept[0])), min(self.high, int(kept[-1]))

    @property
    def middle(self) -> float:
        """An estimate of the number of broken samples, inside the interval."""
        drawn = self.seen - self.census
        if drawn <= 0:
            return (self.low + self.high) / 2
        rest = (self.broken - self._broken_in_census) / drawn * (self.size - self.census)
        return min(max(self._broken_in_census + rest, self.low), self.high)


def next_size(bounds: Bounds, width: int) -> int:
    """How many samples to have seen at the next look, as long as the interval is wider than ``width``."""
    if bounds.seen <= bounds.census:
        return first_size(bounds.size, bounds.census, width, confidence=bounds.confidence)
    return min(bounds.size, bounds.seen + max(_FEWEST_MORE, round(_GROWTH * bounds.seen)))


def first_size(size: int, census: int, width: int, *, confidence: float = 0.95) -> int:
    """How many samples must be seen at least before the interval can have ``width``: if no random one is broken.

    Args:
        width: the largest number minus the smallest.
    """
    least, most = census, size
    while least < most:
        seen = (least + most) // 2
        bounds = Bounds(size, census, confidence)
        bounds.see(np.zeros(seen, dtype=bool))
        least, most = (least, seen) if bounds.high - bounds.low <= width else (seen + 1, most)
    return least
