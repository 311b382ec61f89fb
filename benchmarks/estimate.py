"""Replays the estimate of a suite on populations whose full verdicts are known: does its interval hold, what is saved?

Nothing is attacked. A population is a number of images, of which some survive the opening of the suite, and some of
these are broken by the rest of it. Each replay draws the order anew, sees the verdicts in that order as an evaluation
would, and stops at the half-width that was asked for::

    python -m benchmarks.estimate                      # populations made up, 10,000 images
    python -m benchmarks.estimate --results DIR        # stored results as well, each at its own size

Passes are counted in forward passes, with a backward pass counted as one more: see ``COSTS``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.results import store
from harness.results.estimate import Bounds, next_size, order

__all__ = ["Population", "made_up", "replay", "stored"]

COSTS = {"opening": 400, "rest": 1_600 + 2_250 + 5_000}
"""Passes of one sample that survives: APGD on the cross-entropy and on one target; on eight more targets, FAB on nine
(forward and backward, and a quarter more for verifying steps), and Square's queries."""


@dataclass(frozen=True, eq=False)
class Population:
    """Images whose full verdicts are known.

    Attributes:
        n: images. margins: of the survivors of the opening. broken: bool, of these, by the rest of the suite.
    """

    name: str
    n: int
    margins: np.ndarray[Any, Any]
    broken: np.ndarray[Any, Any]


def made_up(n: int, survivors: float, broken: float, where: str, seed: int) -> Population:
    """A population with shares ``survivors`` and ``broken`` of its images.

    Args:
        where: "small": nine in ten broken samples are among the tenth with the smallest margins; "anywhere"; "large":
            all among the half with the largest, as an adversary would plant them.
    """
    generator = np.random.default_rng(seed)
    size, count = round(n * survivors), round(n * broken)
    truth = np.zeros(size, dtype=bool)
    near = round(0.9 * count) if where == "small" else 0
    truth[generator.choice(size // 10, near, replace=False)] = True
    first = size // 2 if where == "large" else 0
    free = first + np.flatnonzero(~truth[first:])
    truth[generator.choice(free, count - near, replace=False)] = True
    name = f"{100 * survivors:.0f} % survive, {100 * broken:g} % broken later, {where} margins"
    return Population(name, n, np.arange(size, dtype=np.float64), truth)


def stored(root: Path) -> Iterator[Population]:
    """The results in a folder of suites with several steps. They do not hold margins, which are drawn at random: so the
    census saves nothing. The opening is taken to be the first step."""
    for path, result in store.read_all(root).results:
        if len(result.steps) > 1:
            verdicts = store.read_verdicts(path)
            alive = verdicts.robust | (verdicts.broken_by > 0)
            margins = np.random.default_rng(0).random(int(alive.sum()))
            yield Population(f"{result.checkpoint}, {result.suite}", result.n, margins, ~verdicts.robust[alive])


def replay(population: Population, half_width: float, replays: int) -> dict[str, Any]:
    """Coverage of the interval, its half-width, and passes as a share of the full suite's on the survivors."""
    size, width = len(population.broken), int(2 * half_width * population.n)
    truth, covered, reached, seen, spread = int(population.broken.sum()), 0, 0, [], []
    for seed in range(replays):
        chosen = order(population.margins, seed=seed)
        verdicts = population.broken[chosen.positions]
        bounds = Bounds(size, chosen.census)
        while bounds.high - bounds.low > width and bounds.seen < size:
            bounds.see(verdicts[bounds.seen : next_size(bounds, width)])
        covered += bounds.low <= truth <= bounds.high
        reached += bounds.high - bounds.low <= width
        seen.append(bounds.seen)
        spread.append((bounds.high - bounds.low) / 2 / population.n)
    whole = COSTS["opening"] + COSTS["rest"]
    share = (COSTS["opening"] + COSTS["rest"] * np.array(seen) / max(1, size)) / whole
    return {
        "population": population.name,
        "n": population.n,
        "survivors": size,
        "broken": truth,
        "coverage": covered / replays,
        "reached": reached / replays,
        "half_width": float(np.mean(spread)),
        "attacked": float(np.mean(seen)),
        "times_fewer": float(1 / np.mean(share)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half-width", type=float, default=0.5, help="in points")
    parser.add_argument("--replays", type=int, default=1000)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--results", type=Path, help="a folder of results")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    populations = [
        made_up(options.n, 0.5, broken, where, seed=0)
        for broken in (0.0, 0.0005, 0.002, 0.005, 0.02)
        for where in ("small", "anywhere", "large")
    ]
    populations += list(stored(options.results)) if options.results else []
    rows = []
    for population in populations:
        rows.append(replay(population, options.half_width / 100, options.replays))
        shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in rows[-1].items()}
        print(" | ".join(str(value) for value in shown.values()), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
