"""How often true null hypotheses are rejected by the tests that judge claims, by simulation.

``python -m benchmarks.statistics [--repetitions 4000] [--seed 0] [--json FILE]``

Networks that differ by chance alone are drawn, and tested at a level of 5 %. An image is robust where the sum of its
own ease, the quality of the training run and noise of both is above a threshold; the spreads are in units of that
noise, the threshold makes the rate over all images and runs exact. A rate is tested against its true value, a
pair of regimes against each other on the same images. With one seed there is one network and the question is about
other images alone; with two, the test is about these networks too, and what is shown is what it would be worth as a
statement about others.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import norm

from harness.studies.statistics import Difference, Rate, p_value

__all__ = ["CASES", "Case", "level", "main"]

_LEVEL = 0.05


@dataclass(frozen=True)
class Case:
    """One population of networks.

    Attributes:
        kind: "rate" (one accuracy against its true value) or "pair" (two regimes of the same accuracy).
        seeds: training runs. images: test images.
        share: the true accuracy.
        seed_spread, image_spread: standard deviations of what runs and images add, in units of the noise.
    """

    kind: str
    seeds: int
    images: int
    share: float
    seed_spread: float
    image_spread: float


CASES = (
    *(Case("rate", 1, images, share, 0.0, 0.0) for images in (100, 600) for share in (0.005, 0.02, 0.1, 0.5)),
    *(Case("pair", 1, 250, share, 0.0, 1.0) for share in (0.02, 0.1, 0.5)),
    *(
        Case(kind, seeds, 250, share, seed_spread, image_spread)
        for seeds in (2, 3, 5)
        for kind, share, seed_spread, image_spread in product(
            ("rate", "pair"), (0.02, 0.1, 0.5), (0.0, 0.1, 0.3), (0.5, 2.0)
        )
    ),
)


def level(case: Case, *, repetitions: int, seed: int) -> float:
    """Share of repetitions in which the true null hypothesis is rejected at 5 %."""
    draws = np.random.default_rng(seed)
    rejected = sum(p_value(_drawn(case, draws)) < _LEVEL for _ in range(repetitions))
    return rejected / repetitions


def _drawn(case: Case, draws: np.random.Generator) -> Difference:
    shape = (case.seeds, case.images)
    threshold = norm.ppf(case.share) * math.sqrt(1 + case.seed_spread**2 + case.image_spread**2)
    ease = case.image_spread * draws.normal(size=(1, case.images))

    def robust() -> np.ndarray:
        run = case.seed_spread * draws.normal(size=(case.seeds, 1))
        return 100.0 * (threshold + run + ease + draws.normal(size=shape) > 0)

    if case.kind == "rate":
        bound = 100 * case.share
        return Difference(robust() - bound, np.tile([100 - bound, -bound], (case.seeds, 1)), Rate(1.0, -bound))
    return Difference(robust() - robust(), np.tile([100.0, -100.0], (case.seeds, 1)))


def main() -> None:
    """Simulate all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=4000, help="simulated studies a case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all figures to this file as well")
    options = parser.parse_args()
    rows = [(case, level(case, repetitions=options.repetitions, seed=options.seed)) for case in CASES]
    table = Table("kind", "seeds", "images", "true rate", "seed spread", "image spread", "rejected")
    for case, found in rows:
        cells = (case.kind, case.seeds, case.images, case.share, case.seed_spread, case.image_spread)
        table.add_row(*map(str, cells), f"{100 * found:.1f} %")
    console = Console()
    console.print(table)
    for seeds, kind in sorted({(case.seeds, case.kind) for case, _ in rows}):
        rejected = [value for case, value in rows if (case.seeds, case.kind) == (seeds, kind)]
        highest, mean = (f"{100 * value:.1f} %" for value in (max(rejected), sum(rejected) / len(rejected)))
        console.print(f"seeds: {seeds}, kind: {kind}: at most {highest}, {mean} on average over {len(rejected)} cases")
    if options.json:
        content = [asdict(case) | {"rejected": value} for case, value in rows]
        options.json.write_text(
            json.dumps({"repetitions": options.repetitions, "seed": options.seed, "rows": content}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
