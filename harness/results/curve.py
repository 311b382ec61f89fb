"""Robust accuracy against the radius, of several evaluations of one model on the same samples.

A sample that was broken at some radius counts as broken at every larger one: its adversarial example lies in the larger
ball as well, and what the model takes it for does not depend on the ball. So the curve never rises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import InvalidInput
from harness.results.record import Result, Verdicts
from harness.results.stats import Interval, wilson
from harness.util.text import counted

__all__ = ["Curve", "RadiusPoint", "curve_of", "never_rising"]

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Distances = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class RadiusPoint:
    """The samples that survive at one radius.

    Attributes:
        eps: the text that the radius was written as.
        robust: samples that survive here and at every smaller radius. alone: that survive the attack at this radius,
            whatever was found at smaller ones.
        evaluation_id: of the result that it is from; None at radius 0, where nothing is attacked.
    """

    eps: str
    radius: float
    robust: int
    alone: int
    evaluation_id: str | None


@dataclass(frozen=True, eq=False)
class Curve:
    """Robust accuracy at ascending radii, the first of which is 0.

    Attributes:
        label, dataset, split, norm, suite, seed: what was evaluated. n: on how many samples.
        distances: ``[n]`` of each sample the smallest distance at which FAB found an adversarial example; 0 where it is
            wrong without attack, infinite where none was found. None where FAB was not run.
    """

    label: str
    dataset: str
    split: str
    norm: str
    suite: str
    seed: int
    n: int
    points: tuple[RadiusPoint, ...]
    distances: Distances | None = None

    def accuracy(self, point: RadiusPoint) -> float:
        """The share of samples that survive at a point of the curve."""
        return point.robust / self.n

    def interval(self, point: RadiusPoint) -> Interval:
        """Its 95 % Wilson interval."""
        return wilson(point.robust, self.n)

    @property
    def area(self) -> float:
        """Mean accuracy between radius 0 and the largest one, along straight lines between the points."""
        radii = [point.radius for point in self.points]
        return float(np.trapezoid([self.accuracy(point) for point in self.points], radii) / radii[-1])

    @property
    def median_distance(self) -> float | None:
        """Median of `distances` over the samples that are right without attack; None where it is not known.

        A sample for which FAB found nothing counts as further away than all others.
        """
        if self.distances is None:
            return None
        ordered = np.sort(self.distances[self.distances > 0])
        if len(ordered) == 0:
            return None
        median = float(ordered[(len(ordered) - 1) // 2])
        return median if np.isfinite(median) else None

    def __repr__(self) -> str:
        figures = ", ".join(f"{point.eps}: {self.accuracy(point):.1%}" for point in self.points)
        return f"<Curve {self.label}: {self.suite}, {self.norm}, {counted(self.n, f'{self.dataset} image')}: {figures}>"


def curve_of(evaluations: Sequence[tuple[Result, Verdicts]], distances: Distances | None = None) -> Curve:
    """The curve of evaluations that differ in their radius alone, in any order.

    Args:
        distances: ``[n]``, see `Curve`.

    Raises:
        InvalidInput: none at a radius above 0, or evaluations that differ in more, or that have one radius.
    """
    ordered = sorted(evaluations, key=lambda one: one[0].threat.radius)
    if not ordered or ordered[-1][0].threat.radius == 0:
        raise InvalidInput("a curve needs an evaluation at a radius above 0")
    first, verdicts = ordered[0]
    same: dict[str, set[object]] = {
        "model": {(r.checkpoint, r.model.sha256, r.model.bn_stats) for r, _ in ordered},
        "suite": {r.suite for r, _ in ordered},
        "seed": {r.seed for r, _ in ordered},
        "norm": {r.threat.norm for r, _ in ordered},
        "set of samples": {r.dataset.sha256 for r, _ in ordered},
    }
    for what, values in same.items():
        if len(values) > 1:
            raise InvalidInput(f"a curve is of one {what}, got {len(values)}")
    radii = [result.threat.radius for result, _ in ordered]
    if len(set(radii)) < len(radii):
        raise InvalidInput(f"a curve has one evaluation a radius, got {', '.join(r.threat.eps for r, _ in ordered)}")
    clean = verdicts.clean_pred == verdicts.y
    masks = never_rising([clean, *(np.asarray(one.robust, dtype=np.bool_) for _, one in ordered)])
    points = [RadiusPoint("0", 0.0, int(clean.sum()), int(clean.sum()), None)]
    points += [
        RadiusPoint(
            result.threat.eps,
            result.threat.radius,
            int(mask.sum()),
            round(result.robust_acc * result.n),
            result.evaluation_id,
        )
        for (result, _), mask in zip(ordered, masks[1:], strict=True)
        if result.threat.radius > 0
    ]
    return Curve(
        label=first.label,
        dataset=first.dataset.name,
        split=first.dataset.split,
        norm=first.threat.norm,
        suite=first.suite,
        seed=first.seed,
        n=first.n,
        points=tuple(points),
        distances=distances,
    )


def never_rising(robust: Sequence[Mask]) -> Mask:
    """``[k, n]``: at each of ``k`` ascending radii, the samples that survive there and at every smaller one.

    Args:
        robust: bool ``[n]`` at each radius, of the same samples in the same order.
    """
    found: Mask = np.logical_and.accumulate(np.stack(list(robust)), axis=0)
    return found
