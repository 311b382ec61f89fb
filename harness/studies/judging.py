"""Is a claim supported in this setting?

All networks are evaluated on the same samples, so a claim is about paired differences: its left side less its right
side, for every seed and image (`harness.studies.comparison`), tested by `harness.studies.statistics`.

A claim about networks that did not train stays open, whatever the figures (`harness.training.health`): they say
nothing of what their regimes can reach. So does one whose effect is smaller than the study's minimal effect.

The p-values of all claims of a study are corrected by Holm's procedure. Two checks are printed beside the verdict and
decide nothing: an interval by a bootstrap over seeds and images (Owen 2007, "The pigeonhole bootstrap"), which is too
narrow for few seeds that vary, and an exact McNemar test a seed, which knows nothing of other seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from harness.results import stats
from harness.studies import comparison, statistics
from harness.studies.claims import Claim
from harness.studies.measurements import Measurements
from harness.studies.statistics import Difference

__all__ = ["LEVEL", "Judgement", "judge"]

LEVEL = 0.05
"""Corrected p-values below this decide."""

_RESAMPLES = 10_000


@dataclass(frozen=True)
class Judgement:
    """What came out for one claim, in percent points of left side less right side.

    Attributes:
        decision: "holds", "fails", or "open".
        gate: why figures decide nothing: "not trained" or "collapsed"; empty where they do.
        reason: why nothing was tested, or decided.
        networks: how many networks the claim speaks of. for_other_seeds: whether it was tested for others as well.
        seeds: how many were compared; in_favour: in how many of them the claim holds, None of one that both sides
            differ, which any two numbers do.
        low, high: 95 % interval. bootstrap: the same by resampling, as a check.
        p_value: None where the difference is no matter of chance. corrected: by Holm. of_what: of a claim with a
            margin, whether it is that both sides are "equal" or that they "differ".
        mcnemar: the largest p-value of any seed, of claims that compare two accuracies.
    """

    claim: Claim
    decision: Literal["holds", "fails", "open"] = "open"
    gate: str = ""
    reason: str = ""
    networks: int = 0
    for_other_seeds: bool = False
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    corrected: float | None = None
    seeds: int = 0
    in_favour: int | None = None
    of_what: Literal["", "equal", "differ"] = ""
    bootstrap: stats.Interval | None = None
    mcnemar: float | None = None

    @property
    def verdict(self) -> str:
        """The decision in words that say how far it reaches."""
        if self.decision == "open":
            return f"open: {self.gate}" if self.gate else "open"
        holds = self.decision == "holds"
        if self.p_value is None:
            return "holds" if holds else "does not hold"
        if self.for_other_seeds:
            return "supported in this setting" if holds else "not reproduced in this setting"
        which = "this network" if self.networks == 1 else f"these {self.networks} networks"
        return f"holds for {which}" if holds else f"does not hold for {which}"


def judge(measurements: Measurements) -> tuple[Judgement, ...]:
    """All claims of a study, in its order."""
    drafts = [_draft(claim, measurements) for claim in measurements.plan.claims]
    tested = [draft for draft in drafts if draft.p_value is not None]
    corrected = iter(stats.holm([draft.p_value for draft in tested if draft.p_value is not None]))
    return tuple(
        draft
        if draft.p_value is None
        else _decided(replace(draft, corrected=next(corrected)), measurements.plan.study.minimal_effect)
        for draft in drafts
    )


def _draft(claim: Claim, measurements: Measurements) -> Judgement:
    """With the decision that the figures would give, if the corrected p-value allows one."""
    seeds = comparison.common_seeds(claim, measurements)
    if not seeds:
        return Judgement(claim, reason="not measured yet")
    difference = comparison.difference(claim, measurements, seeds)
    if not any(comparison.is_sampled(term) for term in claim.terms):
        return _exact(claim, difference)
    found = statistics.estimate(difference)
    holds, p_value = _tested(claim, difference, found)
    equal = holds if claim.relation == "==" else not holds
    drawn = stats.paired_bootstrap(difference.values, np.zeros_like(difference.values), seed=0, resamples=_RESAMPLES)
    compared = comparison.networks(claim, measurements, seeds)
    gate, reason = _gate(measurements, compared)
    return Judgement(
        claim,
        "holds" if holds else "fails",
        gate=gate,
        reason=reason,
        networks=len(compared),
        for_other_seeds=found.for_other_seeds,
        estimate=found.mean,
        low=found.low,
        high=found.high,
        p_value=p_value,
        bootstrap=stats.Interval(drawn.low, drawn.high),
        seeds=len(seeds),
        in_favour=None
        if claim.relation == "!="
        else sum(_holds(claim, float(value)) for value in difference.values.mean(axis=1)),
        of_what="" if claim.margin is None else "equal" if equal else "differ",
        mcnemar=comparison.worst_mcnemar(claim, measurements, seeds),
    )


def _tested(claim: Claim, difference: Difference, found: statistics.Estimate) -> tuple[bool, float]:
    """Whether the claim would hold, and the p-value of that.

    The two errors that a claim with a margin can make exclude each other, so that the smaller of its two p-values
    keeps the level.
    """
    if claim.margin is None:
        return _holds(claim, found.mean), found.p_value
    equal = statistics.equivalence(difference, claim.margin)
    if claim.relation == "!=":
        return (True, found.p_value) if found.p_value < equal else (False, equal)
    apart = statistics.beyond(difference, claim.margin)
    return (True, equal) if equal <= apart else (False, apart)


def _decided(draft: Judgement, minimal_effect: float) -> Judgement:
    if draft.gate or draft.corrected is None or draft.estimate is None or draft.corrected >= LEVEL:
        return replace(draft, decision="open")
    if draft.claim.relation != "==" and abs(draft.estimate) < minimal_effect:
        return replace(draft, decision="open", reason=f"smaller than the minimal effect of {minimal_effect:g} points")
    return draft


def _gate(measurements: Measurements, compared: Sequence[tuple[str, int]]) -> tuple[str, str]:
    """What keeps a claim about these networks open, and the sentence that says why; empty where nothing does."""
    for label, seed in compared:
        for known in measurements.lineage(label):
            health = measurements.health(known, seed)
            if health is not None and not health.trained:
                return health.verdict, f"{known} (seed {seed}): {health.reason}"
    return "", ""


def _exact(claim: Claim, difference: Difference) -> Judgement:
    """A claim about counts of parameters is no matter of chance."""
    value = float(difference.values.mean())
    holds = all(_holds(claim, float(v)) for v in difference.values.ravel())
    return Judgement(
        claim,
        "holds" if holds else "fails",
        reason="exact",
        estimate=value,
        low=value,
        high=value,
        seeds=difference.seeds,
    )


def _holds(claim: Claim, difference: float) -> bool:
    return {
        ">": difference > 0,
        ">=": difference >= 0,
        "<": difference < 0,
        "<=": difference <= 0,
        "!=": difference != 0,
        "==": abs(difference) <= (claim.margin or 0.0),
    }[claim.relation]
