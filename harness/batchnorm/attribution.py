"""Which BN part a gain belongs to, from the evaluations of all combinations."""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial
from typing import Any, Literal

import numpy as np

from harness.batchnorm.swap import Row, Swap
from harness.results.stats import Bootstrap

__all__ = ["Attribution", "Effect", "Measure", "attribute"]

Measure = Literal["clean", "robust"]
"""Which accuracy is attributed."""

_RESAMPLES = 10_000

_Values = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Effect:
    """What one part does to an accuracy; fractions of the samples, with 95 % bootstrap intervals over samples.

    Attributes:
        share: Shapley value, the effect of adding the part, averaged over all orders in which the parts can be
            added. Over all parts the shares add up to the whole gain.
        alone: effect of the part added to A, where nothing else comes from B.
        last: effect of the part added last, where everything else comes from B.
    """

    part: str
    share: Bootstrap
    alone: Bootstrap
    last: Bootstrap


@dataclass(frozen=True)
class Attribution:
    """The gain from A to A with all BN values of B, and the parts that it belongs to.

    Attributes:
        measure: "clean" or "robust".
        before, after: the accuracy of A, and of A with all BN values of B.
        gain: the difference of the two.
        effects: one a part, in the order of the parts.
        lead: the largest share less the second largest; None where there is one part only.
        n: samples.
    """

    measure: Measure
    before: float
    after: float
    gain: Bootstrap
    effects: tuple[Effect, ...]
    lead: Bootstrap | None
    n: int

    @property
    def leader(self) -> str | None:
        """The part with the largest share of a gain, where these samples can tell; else None."""
        ranked = sorted(self.effects, key=lambda effect: -effect.share.difference)
        clear = self.gain.low > 0 and ranked[0].share.low > 0
        return ranked[0].part if clear and (self.lead is None or self.lead.low > 0) else None

    @property
    def sentence(self) -> str:
        """The finding in words."""
        points = f"{100 * self.gain.difference:+.1f} points of {self.measure} accuracy"
        whole = f"all BN values of B change A by {points} ({_interval(self.gain)})"
        if not self.gain.low > 0:
            return f"{whole}: no gain that {self.n:,} samples can show, so none to attribute"
        ranked = sorted(self.effects, key=lambda effect: -effect.share.difference)
        shares = ", ".join(f"{e.part} {100 * e.share.difference:+.1f} ({_interval(e.share)})" for e in ranked)
        if self.leader is None:
            return f"{whole}; shares: {shares}; no part stands out: the largest share is not clearly above the next"
        return f"{whole}; shares: {shares}; {self.leader} carries the largest part of it"


def attribute(swap: Swap, measure: Measure = "robust", *, seed: int = 0) -> Attribution:
    """Shapley values (Shapley 1953) of the BN parts over all combinations of a swap.

    The value of a combination is its accuracy, so every share is a mean over samples, and its interval comes
    from resampling: it says what other samples might have shown, and nothing of other training runs.

    Args:
        measure: "robust" or "clean".
        seed: of the resampling.
    """
    values = {frozenset(row.mix.parts): _answers(row, measure) for row in swap.of_kind("combination")}
    everything = frozenset(swap.parts)
    none, full = values[frozenset()], values[everything]
    shares = {part: _shapley(values, part, everything) for part in swap.parts}
    ranked = sorted(swap.parts, key=lambda part: -shares[part].mean())
    differences = [full - none]
    for part in swap.parts:
        differences += [shares[part], values[frozenset({part})] - none, full - values[everything - {part}]]
    differences += [shares[ranked[0]] - shares[ranked[1]]] if len(ranked) > 1 else []
    gain, *others = _bootstrapped(np.stack(differences), seed)
    effects = tuple(Effect(part, *others[3 * position : 3 * position + 3]) for position, part in enumerate(swap.parts))
    return Attribution(
        measure=measure,
        before=float(none.mean()),
        after=float(full.mean()),
        gain=gain,
        effects=effects,
        lead=others[-1] if len(ranked) > 1 else None,
        n=len(full),
    )


def _bootstrapped(differences: _Values, seed: int) -> list[Bootstrap]:
    """The means of ``[quantities, n]`` over samples, all from the same samples resampled."""
    n = differences.shape[1]
    generator = np.random.default_rng(seed)
    means = np.empty((_RESAMPLES, len(differences)))
    for first in range(0, _RESAMPLES, 100):  # in pieces, so that 10,000 samples fit into memory
        drawn = generator.integers(n, size=(100, n))
        counts = np.apply_along_axis(np.bincount, 1, drawn, minlength=n)
        means[first : first + 100] = counts @ differences.T / n
    lows, highs = np.quantile(means, [0.025, 0.975], axis=0)
    tails = np.minimum((means <= 0).sum(axis=0), (means >= 0).sum(axis=0))
    return [
        Bootstrap(float(mean), float(low), float(high), min(1.0, 2 * (int(tail) + 1) / (_RESAMPLES + 1)))
        for mean, low, high, tail in zip(differences.mean(axis=1), lows, highs, tails, strict=True)
    ]


def _answers(row: Row, measure: Measure) -> _Values:
    return (row.clean if measure == "clean" else row.robust).astype(np.float64)


def _shapley(values: dict[frozenset[str], _Values], part: str, everything: frozenset[str]) -> _Values:
    count = len(everything)
    total = np.zeros_like(values[everything])
    for before, value in values.items():
        if part not in before:
            size = len(before)
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            total += weight * (values[before | {part}] - value)
    return total


def _interval(value: Bootstrap) -> str:
    return f"95 % interval {100 * value.low:+.1f} to {100 * value.high:+.1f}"
