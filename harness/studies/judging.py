"""Is a claim supported, refuted or open?

All networks are evaluated on the same samples, so a claim is about paired differences: its left side less its
right side, for every seed and image. Seeds and images are both drawn from many, so the mean difference is tested in
a two-way random-effects model: how much it would vary with other seeds, with other images, and with what is left
between the two, is estimated from the differences themselves, and Student's t with Satterthwaite's degrees of
freedom gives interval and p-value (Satterthwaite 1946; the same model as in Dorfman, Berbaum & Metz 1992, for readers
and cases). With few seeds that vary much the degrees of freedom are few and the interval is wide, as it should be.

What did not happen in the sample has no variance (0 of 3 images robust would pass for certainly none), so two
imagined images are added, one that speaks as clearly as can be for the left side and one for the right (after Agresti
& Min 2005, "Simple improved confidence intervals for comparing matched proportions").

The p-values of all claims of a study are corrected by Holm's procedure. Two checks stand beside the verdict and
decide nothing: an interval by a bootstrap over seeds and images (Owen 2007, "The pigeonhole bootstrap"), which is too
narrow for few seeds that vary, and an exact McNemar test a seed, which knows nothing of other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy.stats import t as student

from harness.results import stats
from harness.studies.claims import Claim, Quantity, Term
from harness.studies.measurements import Measurement, Measurements
from harness.studies.planning import Plan

__all__ = ["LEVEL", "Judgement", "Verdict", "judge"]

LEVEL = 0.05
"""Corrected p-values below this decide."""

_RESAMPLES = 10_000
_CONFIDENCE = 0.95

Verdict = Literal["supported", "refuted", "open"]
Matrix = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Judgement:
    """What came out for one claim, in percent points of left side less right side.

    Attributes:
        verdict: see `harness.studies.judging`.
        reason: why nothing was tested.
        seeds: how many were compared; in_favour: in how many of them the claim holds.
        low, high: 95 % interval. bootstrap: the same by resampling, as a check.
        p_value: two-sided; None where the difference is no matter of chance. corrected: by Holm.
        mcnemar: the largest p-value of any seed, of claims that compare two accuracies.
    """

    claim: Claim
    verdict: Verdict
    reason: str = ""
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    corrected: float | None = None
    seeds: int = 0
    in_favour: int = 0
    bootstrap: stats.Interval | None = None
    mcnemar: float | None = None


def judge(measurements: Measurements) -> tuple[Judgement, ...]:
    """All claims of a study, in its order."""
    drafts = [_draft(claim, measurements) for claim in measurements.plan.claims]
    tested = [draft for draft in drafts if draft.p_value is not None]
    corrected = iter(stats.holm([draft.p_value for draft in tested if draft.p_value is not None]))
    return tuple(
        draft if draft.p_value is None else _decided(replace(draft, corrected=next(corrected))) for draft in drafts
    )


def _draft(claim: Claim, measurements: Measurements) -> Judgement:
    seeds = _common_seeds(claim, measurements)
    if not seeds:
        return Judgement(claim, "open", reason="not measured yet")
    difference = _difference(claim, measurements, seeds)
    if not any(_is_sampled(term) for term in claim.terms):
        return _exact(claim, difference)
    per_seed = difference.mean(axis=1)
    low, high, p_value = _random_effects(np.hstack([difference, _imagined(claim, measurements, seeds)]))
    drawn = stats.paired_bootstrap(difference, np.zeros_like(difference), seed=0, resamples=_RESAMPLES)
    return Judgement(
        claim,
        "open",
        estimate=float(difference.mean()),
        low=low,
        high=high,
        p_value=p_value,
        bootstrap=stats.Interval(drawn.low, drawn.high),
        seeds=len(seeds),
        in_favour=int(sum(_holds(claim, float(value)) for value in per_seed)),
        mcnemar=_mcnemar(claim, measurements, seeds) if claim.plain_pair else None,
    )


def _decided(draft: Judgement) -> Judgement:
    if draft.corrected is None or draft.estimate is None or draft.corrected >= LEVEL:
        return draft
    return replace(draft, verdict="supported" if _holds(draft.claim, draft.estimate) else "refuted")


def _exact(claim: Claim, difference: Matrix) -> Judgement:
    """A claim about counts of parameters is no matter of chance."""
    value = float(difference.mean())
    verdict: Verdict = "supported" if all(_holds(claim, float(v)) for v in difference.ravel()) else "refuted"
    return Judgement(claim, verdict, reason="exact", estimate=value, low=value, high=value, seeds=len(difference))


def _holds(claim: Claim, difference: float) -> bool:
    return {
        ">": difference > 0,
        ">=": difference >= 0,
        "<": difference < 0,
        "<=": difference <= 0,
        "!=": difference != 0,
    }[claim.relation]


def _common_seeds(claim: Claim, measurements: Measurements) -> tuple[int, ...]:
    """Seeds for which everything was measured. A network that was not trained here counts for every seed."""
    plan = measurements.plan
    common: set[int] | None = None
    fixed = False
    for quantity in claim.quantities:
        if quantity.kind == "params":
            found = set(measurements.networks.get(quantity.label, {}))
        else:
            found = set(measurements.of(quantity.label, plan.measure_of(quantity)))
        if plan.member(quantity.label).source is not None:
            if not found:
                return ()
            fixed = True
            continue
        common = found if common is None else common & found
    if common is None:
        return plan.seeds[:1] if fixed else ()
    return tuple(seed for seed in plan.seeds if seed in common)


def _difference(claim: Claim, measurements: Measurements, seeds: Sequence[int]) -> Matrix:
    """Left side less right side in percent: ``[seeds, n]``."""
    plan = measurements.plan
    total = np.zeros((len(seeds), len(plan.test_set)))
    for term in claim.terms:
        if isinstance(term.what, Quantity):
            total = total + term.factor * _values(term.what, measurements, seeds)
        else:
            chance = 100 / len(plan.test_set.classes)
            total = total + term.factor * (chance if term.what == "chance" else 1.0)
    return total


def _imagined(claim: Claim, measurements: Measurements, seeds: Sequence[int]) -> Matrix:
    """The two images of which as much as can be is right on one side and wrong on the other: ``[seeds, 2]``."""
    sampled = [term.factor * 100 for term in claim.terms if _is_sampled(term)]
    rest = replace(claim, terms=tuple(term for term in claim.terms if not _is_sampled(term)))
    constant = _difference(rest, measurements, seeds).mean(axis=1, keepdims=True)
    extremes = [sum(max(f, 0.0) for f in sampled), sum(min(f, 0.0) for f in sampled)]
    return np.hstack([constant + extreme for extreme in extremes])


def _is_sampled(term: Term) -> bool:
    """Whether it differs from image to image."""
    return isinstance(term.what, Quantity) and term.what.kind != "params"


def _values(quantity: Quantity, measurements: Measurements, seeds: Sequence[int]) -> Matrix:
    if quantity.kind == "params":
        networks = _by_seed(quantity, measurements.networks[quantity.label], measurements.plan, seeds)
        return np.array([[network.trained_share or 0.0] for network in networks])
    found = _by_seed(
        quantity, measurements.of(quantity.label, measurements.plan.measure_of(quantity)), measurements.plan, seeds
    )
    return np.array([100.0 * _bits(quantity, outcome) for outcome in found])


def _by_seed(quantity: Quantity, found: Mapping[int, Any], plan: Plan, seeds: Sequence[int]) -> list[Any]:
    fixed = plan.member(quantity.label).source is not None
    return [next(iter(found.values())) if fixed else found[seed] for seed in seeds]


def _bits(quantity: Quantity, outcome: Measurement) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return outcome.robust if quantity.kind == "robust" else outcome.correct


def _random_effects(difference: Matrix) -> tuple[float, float, float]:
    """Interval and two-sided p-value of the mean of ``[seeds, n]`` differences; both ways are random."""
    k, n = difference.shape
    mean, by_image = difference.mean(), difference.mean(axis=0)
    of_images = by_image.var(ddof=1) / n
    variance, freedom = of_images, n - 1.0
    if k > 1:
        by_seed = difference.mean(axis=1)
        of_seeds = by_seed.var(ddof=1) / k
        rest = difference - by_seed[:, None] - by_image[None, :] + mean
        of_rest = (rest**2).sum() / ((k - 1) * (n - 1)) / (k * n)
        # both hold the rest, so it is counted twice
        variance = max(of_seeds + of_images - of_rest, of_seeds, of_images)
        freedom = variance**2 / (of_seeds**2 / (k - 1) + of_images**2 / (n - 1))
    error = math.sqrt(variance)
    reach = float(student.ppf((1 + _CONFIDENCE) / 2, freedom)) * error
    return float(mean - reach), float(mean + reach), float(2 * student.sf(abs(mean) / error, freedom))


def _mcnemar(claim: Claim, measurements: Measurements, seeds: Sequence[int]) -> float:
    first, second = (
        _by_seed(q, measurements.of(q.label, measurements.plan.measure_of(q)), measurements.plan, seeds)
        for q in claim.quantities
    )
    one, other = claim.quantities
    pairs = zip(first, second, strict=True)
    return max(stats.mcnemar(_bits(one, a), _bits(other, b)).p_value for a, b in pairs)
