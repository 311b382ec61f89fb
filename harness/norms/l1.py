"""The sum norm, whose ball is projected onto together with the pixel box.

Croce & Hein 2021, "Mind the Box: l1-APGD for Sparse Adversarial Attacks on Image Classifiers"
(arXiv 2103.01208): projecting onto the l1 ball first and the box after is not the projection onto
their intersection, and attacks that do so stay far from the optimum.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.draws import Draws
from harness.norms._base import Norm
from harness.norms._hyperplane import hyperplane_l1

__all__ = ["l1"]


class _L1(Norm):
    name: ClassVar[str] = "L1"

    def size(self, delta: Tensor) -> Tensor:
        return self.flat(delta).abs().sum(dim=1)

    def dual_size(self, grad: Tensor) -> Tensor:
        return self.flat(grad).abs().amax(dim=1)

    def project(self, points: Tensor, x: Tensor, eps: float) -> Tensor:
        """Exact Euclidean projection onto ball and box at once.

        The solution moves each coordinate of ``delta = points - x`` to
        ``sign * clip(|delta| - shift, 0, room)``, where ``room`` is what the box leaves in that
        direction and one ``shift >= 0`` per sample makes the sizes add up to ``eps``. The sum is
        piecewise linear in ``shift``, so its knots are sorted and the right piece is solved exactly.
        """
        delta, centre = self.flat(points - x), self.flat(x)
        length = delta.abs()
        room = torch.where(delta > 0, 1 - centre, centre)
        inside = torch.minimum(length, room)
        excess = inside.sum(dim=1) > eps
        moved = inside
        if bool(excess.any()):
            shift = _shift(length, room, eps)
            shrunk = torch.minimum((length - shift[:, None]).clamp(min=0), room)
            moved = torch.where(excess[:, None], shrunk, inside)
        return (centre + delta.sign() * moved).view_as(x)

    def steepest(self, grad: Tensor) -> Tensor:
        flat = self.flat(grad)
        hit = flat.abs().argmax(dim=1, keepdim=True)
        step = torch.zeros_like(flat).scatter_(1, hit, flat.gather(1, hit).sign())
        return step.view_as(grad)

    def noise(self, x: Tensor, draws: Draws, counter: int) -> Tensor:
        return draws.normal(counter, tuple(x.shape[1:])).to(x)

    def start(self, x: Tensor, eps: float, draws: Draws, counter: int) -> Tensor:
        return self.project(x + self.noise(x, draws, counter), x, eps).clamp(0, 1)

    def hyperplane(self, points: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return hyperplane_l1(points, w, b)


def _shift(length: Tensor, room: Tensor, eps: float) -> Tensor:
    """The ``shift [n]`` at which ``sum clip(length - shift, 0, room)`` equals ``eps``."""
    # the sum falls with slope -1 per coordinate between its two knots: length - room and length
    opens = (length - room).clamp(min=0)
    knots, order = torch.cat([opens, length], dim=1).sort(dim=1)
    slopes = torch.where(order < length.shape[1], -1.0, 1.0).to(length).cumsum(dim=1)
    drops = (knots.diff(dim=1) * slopes[:, :-1]).cumsum(dim=1)
    total = torch.minimum(length, room).sum(dim=1)
    sums = total[:, None] + F.pad(drops, (1, 0))
    last = sums.shape[1] - 1
    piece = ((sums > eps).sum(dim=1) - 1).clamp(min=0, max=last)[:, None]
    slope = slopes.gather(1, piece).clamp(max=-1)
    return (knots.gather(1, piece) + (eps - sums.gather(1, piece)) / slope).squeeze(1)


l1 = _L1()
