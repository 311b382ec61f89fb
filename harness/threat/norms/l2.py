"""The Euclidean norm."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from harness.threat.norms._base import Norm
from harness.threat.norms._hyperplane import hyperplane_l2
from harness.threat.norms._moves import Moves
from harness.threat.norms._pyramids import Pyramids

__all__ = ["l2"]

_TINY = 1e-12


class _L2(Norm):
    name: ClassVar[str] = "L2"

    def size(self, delta: Tensor) -> Tensor:
        return self.flat(delta).square().sum(dim=1).sqrt()

    def dual_size(self, grad: Tensor) -> Tensor:
        return self.size(grad)

    def steepest(self, grad: Tensor) -> Tensor:
        return self.normalize(grad)

    def hyperplane(self, points: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return hyperplane_l2(self.flat(points), self.flat(w), b).view_as(points)

    def moves(self) -> Moves:
        return _Pyramids()


class _Pyramids(Pyramids):
    order = 2
    decay = 2

    def mass(self, delta: Tensor) -> Tensor:
        return delta.square().sum(dim=-1)

    def height(self, mass: Tensor, channels: int) -> Tensor:
        return mass.sqrt()

    def length(self, mass: Tensor) -> Tensor:
        return mass.sqrt()

    def finish(self, x: Tensor, delta: Tensor, eps: float) -> Tensor:
        scale = eps / (self.length(self.mass(delta)) + _TINY)
        return torch.addcmul(x, delta, scale[:, None]).clamp_(0, 1)


l2 = _L2()
