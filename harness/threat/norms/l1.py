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

from harness.threat.norms._base import Norm, column
from harness.threat.norms._hyperplane import hyperplane_l1
from harness.threat.norms._moves import Moves
from harness.threat.norms._pyramids import Pyramids
from harness.threat.rng import Draws

__all__ = ["l1"]

# keeps a projected point of a random search inside the ball when float32 rounds its distance
_SHRINK = 1 - 1e-6


class _L1(Norm):
    name: ClassVar[str] = "L1"
    sparse: ClassVar[bool] = True

    def size(self, delta: Tensor) -> Tensor:
        return self.flat(delta).abs().sum(dim=1)

    def dual_size(self, grad: Tensor) -> Tensor:
        return self.flat(grad).abs().amax(dim=1)

    def project(self, points: Tensor, x: Tensor, eps: float) -> Tensor:
        """Exact Euclidean projection onto ball and box at once.

        Each coordinate of ``delta = points - x`` loses ``clip(shift, over, |delta|)`` of its length,
        where ``over`` is what sticks out of the box and one ``shift >= 0`` per sample makes the sizes
        that remain add up to ``eps``. Their sum is piecewise linear in ``shift``, so its knots are
        sorted and the right piece is solved exactly.
        """
        delta, centre = self.flat(points - x), self.flat(x)
        length = delta.abs()
        over = torch.minimum(1 - centre - delta, centre + delta).neg_().clamp_(min=0)
        # inside the ball the shift comes out below every `over`, and only the box takes effect
        shift = _shift(length, over, eps)
        # running sums lose digits in float32: one Newton step on the sum itself brings them back
        kept = (length - torch.minimum(torch.maximum(over, shift), length)).sum(dim=1, keepdim=True)
        moving = ((over < shift) & (shift < length)).sum(dim=1, keepdim=True).clamp(min=1)
        shift = shift + (kept - eps) / moving
        loss = torch.minimum(torch.maximum(over, shift), length)
        return (centre + delta).addcmul_(delta.sign(), loss, value=-1).clamp_(0, 1).view_as(x)

    def steepest(self, grad: Tensor) -> Tensor:
        flat = self.flat(grad)
        hit = flat.abs().argmax(dim=1, keepdim=True)
        step = torch.zeros_like(flat).scatter_(1, hit, flat.gather(1, hit).sign())
        return step.view_as(grad)

    def start(self, x: Tensor, eps: float, draws: Draws, counter: int) -> Tensor:
        return self.project(x + self.noise(x, draws, counter), x, eps).clamp(0, 1)

    def inside(self, x: Tensor, eps: float, draws: Draws, counter: int) -> Tensor:
        # sizes of exponential draws over their sum are uniform on the simplex; volume grows with radius ** d
        u = 2 * draws.uniform(counter, tuple(x.shape[1:])) - 1
        # u may be -1, whose logarithm is infinite
        direction = self.normalize((-u.sign() * torch.log1p(-u.abs().clamp(max=1 - 2**-53))).to(x))
        radius = eps * draws.uniform(counter + 1, ()).to(x) ** (1 / x[0].numel())
        return (x + column(radius, x) * direction).clamp(0, 1)

    def climb(self, points: Tensor, grad: Tensor, step: float) -> Tensor:
        """The steepest step within the box, spread over at least 1 % of the coordinates.

        The very steepest step would change one pixel, which soon has no room left. So the coordinates
        are filled in the order of their gradients, each up to the box or its share of ``step``
        (Tramèr & Boneh 2019, arXiv 1904.13000, spread their l1 steps likewise).
        """
        flat, place = self.flat(grad), self.flat(points)
        room = torch.where(flat > 0, 1 - place, place).clamp_(min=0, max=step / max(1, flat.shape[1] // 100))
        order = flat.abs().argsort(dim=1, descending=True)
        room = room.gather(1, order)
        spent = room.cumsum(dim=1) - room
        amount = torch.minimum(room, (step - spent).clamp_(min=0))
        move = torch.zeros_like(flat).scatter_(1, order, amount).mul_(flat.sign())
        return points + move.view_as(points)

    def hyperplane(self, points: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return hyperplane_l1(self.flat(points), self.flat(w), b).view_as(points)

    def moves(self) -> Moves:
        return _Pyramids()


class _Pyramids(Pyramids):
    """As in Croce & Hein 2021: bumps overshoot and are projected onto ball and box."""

    order = 1
    decay = 4

    def mass(self, delta: Tensor) -> Tensor:
        return delta.abs().sum(dim=-1)

    def height(self, mass: Tensor, channels: int) -> Tensor:
        return mass * channels

    def length(self, mass: Tensor) -> Tensor:
        return mass

    def finish(self, x: Tensor, delta: Tensor, eps: float) -> Tensor:
        return l1.project(x + delta, x, eps * _SHRINK)


def _shift(length: Tensor, over: Tensor, eps: float) -> Tensor:
    """The ``shift [n, 1]`` at which ``sum(length - clip(shift, over, length))`` equals ``eps``."""
    # the sum falls with slope -1 per coordinate between its two knots: over and length
    knots, order = torch.cat([over, length], dim=1).sort(dim=1)
    slopes = torch.where(order < length.shape[1], -1.0, 1.0).to(length).cumsum(dim=1)
    drops = (knots.diff(dim=1) * slopes[:, :-1]).cumsum(dim=1)
    total = (length - over).sum(dim=1, keepdim=True)
    sums = total + F.pad(drops, (1, 0))
    last = sums.shape[1] - 1
    piece = ((sums > eps).sum(dim=1, keepdim=True) - 1).clamp(min=0, max=last)
    slope = slopes.gather(1, piece).clamp(max=-1)
    return knots.gather(1, piece) + (eps - sums.gather(1, piece)) / slope


l1 = _L1()
