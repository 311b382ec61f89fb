"""A small network and samples near its decision boundaries, on which attacks are checked."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from harness.attacks import Batch, Loss
from harness.threat import ThreatModel
from harness.threat.rng import Draws, sample_keys

__all__ = ["CLASSES", "Oracle", "samples"]

CLASSES, SHAPE = 5, (3, 6, 6)
_POOL = 400
# how far the samples lie from the nearest boundary, in radii: some break at once, some late, some never
_DISTANCES = (0.2, 0.5, 0.7, 0.9, 1.0, 1.6)


@cache
def _weights() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    features = int(np.prod(SHAPE))
    first, second = torch.randn(2, features, CLASSES, generator=generator, dtype=torch.float64)
    return first, second


def _logits(x: Tensor) -> Tensor:
    first, second = _weights()
    centred = x.flatten(1) - 0.5
    return centred @ first + 0.3 * torch.sin(3 * centred @ second)


def samples(threat: ThreatModel, *, seed: int = 0) -> Batch:
    """Images in float64 whose distances from the nearest boundary are about as large as the radius."""
    generator = torch.Generator().manual_seed(7)
    contrast = torch.rand(_POOL, 1, 1, 1, generator=generator, dtype=torch.float64)
    pool = 0.5 + contrast * (torch.rand(_POOL, *SHAPE, generator=generator, dtype=torch.float64) - 0.5)
    logits = _logits(pool)
    top = logits.topk(2, dim=1)
    first, _ = _weights()
    normal = (first[:, top.indices[:, 0]] - first[:, top.indices[:, 1]]).T.reshape(-1, *SHAPE)
    away = (top.values[:, 0] - top.values[:, 1]) / threat.geometry.dual_size(normal) / threat.radius
    chosen: list[int] = []
    for distance in _DISTANCES:
        order = (away - distance).abs().argsort().tolist()
        chosen.append(next(row for row in order if row not in chosen))
    x = pool[chosen]
    logits = _logits(x)
    return Batch(x, logits.argmax(dim=1), logits, Draws(sample_keys(x), seed, "contract"))


class Oracle:
    """Passes one row at a time, so that nothing but the attack can make a row depend on another.

    Attributes:
        asked: all points that were tried, by sample.
    """

    def __init__(self, owners: list[int], asked: dict[int, list[Tensor]], micro_batch: int) -> None:
        self.owners, self.asked, self.micro_batch = owners, asked, micro_batch

    def logits(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        self._note(x, rows)
        return torch.cat([_logits(row[None]) for row in x])

    def gradient(self, x: Tensor, loss: Loss, rows: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        logits, losses, grads = self.gradients(x, lambda out, part: loss(out, part)[:, None], rows)
        return logits, losses[:, 0], grads[:, 0]

    def gradients(self, x: Tensor, losses: Loss, rows: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        self._note(x, rows)
        found = [_gradients(row[None], losses, place) for place, row in enumerate(x)]
        logits, values, grads = (torch.cat(each) for each in zip(*found, strict=True))
        return logits, values, grads

    def _note(self, x: Tensor, rows: Tensor | None) -> None:
        owners = self.owners if rows is None else [self.owners[row] for row in rows.tolist()]
        for owner, point in zip(owners, x.detach().clone(), strict=True):
            self.asked[owner].append(point)


def _gradients(row: Tensor, losses: Loss, place: int) -> tuple[Tensor, Tensor, Tensor]:
    leaf = row.detach().requires_grad_()
    logits = _logits(leaf)
    values = losses(logits, slice(place, place + 1))
    grads = [torch.autograd.grad(value, leaf, retain_graph=True)[0] for value in values[0]]
    return logits.detach(), values.detach(), torch.stack(grads, dim=1)
