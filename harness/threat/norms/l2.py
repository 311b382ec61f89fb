"""The Euclidean norm."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from harness.threat.norms._base import Norm, column
from harness.threat.norms._hyperplane import hyperplane_l2
from harness.threat.rng import Draws

__all__ = ["l2"]


class _L2(Norm):
    name: ClassVar[str] = "L2"

    def size(self, delta: Tensor) -> Tensor:
        return self.flat(delta).square().sum(dim=1).sqrt()

    def dual_size(self, grad: Tensor) -> Tensor:
        return self.size(grad)

    def project(self, points: Tensor, x: Tensor, eps: float) -> Tensor:
        delta = points - x
        radius = self.size(delta).clamp(max=eps)
        return (x + self.normalize(delta) * column(radius, x)).clamp(0, 1)

    def steepest(self, grad: Tensor) -> Tensor:
        return self.normalize(grad)

    def noise(self, x: Tensor, draws: Draws, counter: int) -> Tensor:
        return draws.normal(counter, tuple(x.shape[1:])).to(x)

    def inside(self, x: Tensor, eps: float, draws: Draws, counter: int) -> Tensor:
        direction = self.normalize(self.noise(x, draws, counter))
        # volume grows with radius ** d
        radius = eps * draws.uniform(counter + 1, ()).to(x) ** (1 / x[0].numel())
        return (x + column(radius, x) * direction).clamp(0, 1)

    def hyperplane(self, points: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return hyperplane_l2(points, w, b)


l2 = _L2()
