"""Whether simple attacks break samples that the suite left: noise, others' perturbations, one step, a short PGD."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.audit import kinds
from harness.audit.attacked import Attacked
from harness.audit.flags import Flag

__all__ = ["gains"]

_NOISE, _OTHERS = 8, 4


def gains(attacked: Attacked) -> Iterator[Flag]:
    """Attack some survivors; what breaks one is an adversarial example that the suite missed."""
    x, y = attacked.survivors
    if len(x) == 0:
        return
    noise = _any(attacked, y, _noise(attacked, x))
    if noise:
        yield kinds.NOISE_GAINS(samples=noise, of=len(x))
    transferred = _any(attacked, y, _transferred(attacked, x))
    if transferred:
        yield kinds.TRANSFER_GAINS(samples=transferred, of=len(x))
    short = int(attacked.climbed(x, y, attacked.threat).sum())
    if short:
        yield kinds.SHORT_PGD_GAINS(samples=short, of=len(x))


def _any(attacked: Attacked, y: Tensor, candidates: list[Tensor]) -> int:
    """How many samples one of several points breaks."""
    if not candidates:
        return 0
    return int(torch.stack([attacked.misclassified(points, y) for points in candidates]).any(dim=0).sum())


def _noise(attacked: Attacked, x: Tensor) -> list[Tensor]:
    geometry, radius = attacked.threat.geometry, attacked.threat.radius
    draws = attacked.draws(x)
    return [geometry.start(x, radius, draws, counter).to(x) for counter in range(_NOISE)]


def _transferred(attacked: Attacked, x: Tensor) -> list[Tensor]:
    """The perturbations of some broken samples, added to others."""
    rows = attacked.rows(attacked.broken)[:_OTHERS]
    perturbations = (attacked.points[rows] - attacked.x[rows]).to(x)
    return [attacked.threat.project(x + perturbation, x) for perturbation in perturbations]
