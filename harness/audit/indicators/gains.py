"""Whether simple attacks break samples that the suite left: noise, others' perturbations, one step, a short PGD."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from harness.audit import kinds
from harness.audit.attacked import Attacked, Indicator
from harness.audit.flags import Flag
from harness.audit.trials import Trial, count

__all__ = ["gains"]

_NOISE, _OTHERS = 8, 4
_RAISES = {
    "noise": kinds.NOISE_GAINS,
    "transferred": kinds.TRANSFER_GAINS,
    "short": kinds.SHORT_PGD_GAINS,
}


def _probe(attacked: Attacked, name: str) -> Iterator[Trial]:
    """Attack some survivors; what breaks one is an adversarial example that the suite missed."""
    rows = attacked.rows("survivors")
    x, y = attacked.samples(rows)
    if len(x):
        outcomes = {
            "noise": _any(attacked, y, _noise(attacked, x)),
            "transferred": _any(attacked, y, _transferred(attacked, x)),
        }
        if attacked.differentiable:
            outcomes["short"] = attacked.climbed(x, y, attacked.threat)
        yield from attacked.trials(name, "survivors", rows, outcomes)


def _flags(trials: Sequence[Trial]) -> Iterator[Flag]:
    for outcome, kind in _RAISES.items():
        samples = count(trials, outcome)
        if samples:
            yield kind(samples=samples, of=len(trials))


def _any(attacked: Attacked, y: Tensor, candidates: list[Tensor]) -> Tensor:
    """Which samples one of several points breaks, bool ``[m]``."""
    broken = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    for points in candidates:
        broken |= attacked.misclassified(points, y)
    return broken


def _noise(attacked: Attacked, x: Tensor) -> list[Tensor]:
    geometry, radius = attacked.threat.geometry, attacked.threat.radius
    draws = attacked.draws(x)
    return [geometry.start(x, radius, draws, counter).to(x) for counter in range(_NOISE)]


def _transferred(attacked: Attacked, x: Tensor) -> list[Tensor]:
    """The perturbations of some broken samples, added to others."""
    rows = attacked.rows("broken")[:_OTHERS]
    perturbations = (attacked.points[rows] - attacked.x[rows]).to(x)
    return [attacked.threat.project(x + perturbation, x) for perturbation in perturbations]


gains = Indicator(tuple(_RAISES.values()), _probe, _flags)
