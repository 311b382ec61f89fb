"""The interval of an estimate holds its level at all times together, on every population."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import hypergeom

from harness.errors import InvalidInput
from harness.results.estimate import Bounds, first_size, log_ratio, order

LEVEL = np.log(20)


def ever_excluded(size: int, broken: int) -> float:
    """The exact probability that the true number is left out at any time, over all orders of a population."""
    alive = np.zeros(size + 1)
    alive[0], lost = 1.0, 0.0
    for seen in range(size):
        following = np.zeros(size + 1)
        for hits in np.flatnonzero(alive):
            share = (broken - hits) / (size - seen)
            following[hits] += alive[hits] * (1 - share)
            if share > 0:
                following[hits + 1] += alive[hits] * share
        for hits in np.flatnonzero(following):
            if not log_ratio(size, seen + 1, hits)[broken] < LEVEL:
                lost += following[hits]
                following[hits] = 0.0
        alive = following
    return lost


@pytest.mark.parametrize("size", [1, 7, 40])
def test_the_level_is_held_exactly_whenever_one_looks(size: int) -> None:
    worst = max(ever_excluded(size, broken) for broken in range(size + 1))
    assert worst <= 0.05
    assert size < 40 or worst > 0.005, "an interval that never fails is too wide"


def test_the_mean_of_the_ratio_is_one_at_most() -> None:
    size, broken, seen = 30, 4, 11
    hits = np.arange(broken + 1)

    chances = hypergeom(size, broken, seen).pmf(hits)
    mean = float(chances @ [np.exp(log_ratio(size, seen, int(hit))[broken]) for hit in hits])
    # what it lacks is the prior's probability of more hits than there are broken samples
    assert 1 - 1e-4 < mean <= 1


@pytest.mark.parametrize("kind", ["small", "large", "anywhere"])
def test_replays_cover_and_the_census_is_no_draw(kind: str) -> None:
    size, broken, misses, seen = 400, 12, 0, []
    for seed in range(200):
        generator = np.random.default_rng(seed)
        margins = np.sort(generator.random(size))
        where = {"small": slice(0, 40), "large": slice(200, None), "anywhere": slice(0, None)}[kind]
        truth = np.zeros(size, dtype=bool)
        truth[generator.choice(np.arange(size)[where], broken, replace=False)] = True
        chosen = order(margins, seed=seed)
        bounds = Bounds(size, chosen.census)
        for part in np.array_split(truth[chosen.positions], 40):
            bounds.see(part)
            if bounds.high - bounds.low <= 24:
                break
        misses += not bounds.low <= broken <= bounds.high
        assert bounds.low <= bounds.middle <= bounds.high
        seen.append(bounds.seen)
    # 200 replays of an interval of 95 % miss more than 18 times in one of 200 cases
    assert misses <= 18
    assert np.mean(seen) < 0.9 * size


def test_all_samples_seen_is_the_truth() -> None:
    truth = np.random.default_rng(0).random(60) < 0.3
    bounds = Bounds(60, 10)
    bounds.see(truth[:25])
    assert bounds.low < bounds.high
    bounds.see(truth[25:])
    assert bounds.low == bounds.high == truth.sum() == bounds.middle


def test_the_order_is_the_smallest_margins_then_a_seeded_choice() -> None:
    margins = np.random.default_rng(1).random(2000)
    first = order(margins, seed=0)
    assert first.census == 20
    assert first.positions[:20].tolist() == np.argsort(margins)[:20].tolist()
    assert sorted(first.positions.tolist()) == list(range(2000))
    assert np.array_equal(order(margins, seed=0).positions, first.positions)
    assert not np.array_equal(order(margins, seed=1).positions, first.positions)
    # no trace of the margins in what follows
    assert abs(np.corrcoef(np.arange(1980), margins[first.positions[20:]])[0, 1]) < 0.1


def test_the_first_size_is_the_smallest_that_can_do() -> None:
    seen = first_size(5000, 50, 100)
    for count, enough in ((seen, True), (seen - 1, False)):
        bounds = Bounds(5000, 50)
        bounds.see(np.zeros(count, dtype=bool))
        assert (bounds.high - bounds.low <= 100) == enough
    assert 150 < seen < 300


def test_what_cannot_be() -> None:
    with pytest.raises(InvalidInput, match="4 are too many"):
        Bounds(3, 1).see([True] * 4)
    with pytest.raises(InvalidInput, match="broken <= seen"):
        log_ratio(3, 1, 2)
    with pytest.raises(InvalidInput, match="finite"):
        order([0.1, np.nan], seed=0)
