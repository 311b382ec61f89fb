"""What a claim compares, as numbers: left side less right side, for every seed and image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from harness.results import stats
from harness.studies.claims import Claim, Quantity, Term
from harness.studies.measurements import Measurement, Measurements
from harness.studies.planning import Plan
from harness.studies.statistics import Difference, Matrix, Rate

__all__ = ["common_seeds", "difference", "is_sampled", "networks", "worst_mcnemar"]


def common_seeds(claim: Claim, measurements: Measurements) -> tuple[int, ...]:
    """Seeds for which everything was measured. A network that was there already is compared with every seed."""
    plan = measurements.plan
    common: set[int] | None = None
    fixed = False
    for quantity in claim.quantities:
        if quantity.kind == "params":
            found = set(measurements.networks.get(quantity.label, {}))
        else:
            measured = (measurements.of(quantity.label, measure) for measure in plan.measures_for(quantity))
            found = set.intersection(*(set(seeds) for seeds in measured))
        if plan.member(quantity.label).source is not None:
            if not found:
                return ()
            fixed = True
            continue
        common = found if common is None else common & found
    if common is None:
        return plan.seeds[:1] if fixed else ()
    return tuple(seed for seed in plan.seeds if seed in common)


def networks(claim: Claim, measurements: Measurements, seeds: Sequence[int]) -> tuple[tuple[str, int], ...]:
    """Label and seed of every network that is compared, each once."""
    plan = measurements.plan
    found: dict[tuple[str, int], None] = {}
    for quantity in claim.quantities:
        own = seeds if plan.member(quantity.label).source is None else plan.seeds[:1]
        found.update(dict.fromkeys((quantity.label, seed) for seed in own))
    return tuple(found)


def difference(claim: Claim, measurements: Measurements, seeds: Sequence[int]) -> Difference:
    """Left side less right side in percent points."""
    sampled = [term for term in claim.terms if is_sampled(term)]
    rest = replace(claim, terms=tuple(term for term in claim.terms if not is_sampled(term)))
    constant = _values(rest, measurements, seeds).mean(axis=1, keepdims=True)
    extremes = [sum(max(100 * t.factor, 0) for t in sampled), sum(min(100 * t.factor, 0) for t in sampled)]
    rate = None
    # a curve's mean is no share of images, and a constant that differs between seeds is none either
    single = len(sampled) == 1 and isinstance(sampled[0].what, Quantity) and sampled[0].what.kind != "mean_robust"
    if single and len(set(constant.ravel())) == 1:
        rate = Rate(sampled[0].factor, float(constant[0, 0]))
    imagined = np.hstack([constant + extreme for extreme in extremes])
    return Difference(_values(claim, measurements, seeds), imagined, rate)


def is_sampled(term: Term) -> bool:
    """Whether it differs from image to image."""
    return isinstance(term.what, Quantity) and term.what.kind != "params"


def worst_mcnemar(claim: Claim, measurements: Measurements, seeds: Sequence[int]) -> float | None:
    """The largest p-value of any seed, of claims that compare two accuracies with each other."""
    if not claim.plain_pair:
        return None
    one, other = (_answers(quantity, measurements, seeds) for quantity in claim.quantities)
    return max(stats.mcnemar(a > 0.5, b > 0.5).p_value for a, b in zip(one, other, strict=True))


def _values(claim: Claim, measurements: Measurements, seeds: Sequence[int]) -> Matrix:
    plan = measurements.plan
    total = np.zeros((len(seeds), len(plan.test_set)))
    for term in claim.terms:
        if isinstance(term.what, Quantity):
            total = total + term.factor * 100 * _answers(term.what, measurements, seeds)
        else:
            chance = 100 / len(plan.test_set.classes)
            total = total + term.factor * (chance if term.what == "chance" else 1.0)
    return total


def _answers(quantity: Quantity, measurements: Measurements, seeds: Sequence[int]) -> Matrix:
    """Fractions ``[seeds, n]``, or ``[seeds, 1]`` for a share of parameters."""
    plan = measurements.plan
    if quantity.kind == "params":
        found = _by_seed(quantity, measurements.networks[quantity.label], plan, seeds)
        return np.array([[(network.trained_share or 0.0) / 100] for network in found])
    answers = [
        [_bits(quantity, one) for one in _by_seed(quantity, measurements.of(quantity.label, measure), plan, seeds)]
        for measure in plan.measures_for(quantity)
    ]
    mean: Matrix = np.asarray(answers, dtype=np.float64).mean(axis=0)
    return mean


def _by_seed(quantity: Quantity, found: Mapping[int, Any], plan: Plan, seeds: Sequence[int]) -> list[Any]:
    fixed = plan.member(quantity.label).source is not None
    return [next(iter(found.values())) if fixed else found[seed] for seed in seeds]


def _bits(quantity: Quantity, measured: Measurement) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return measured.correct if quantity.kind == "clean" else measured.robust
