"""The maximum norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from harness.threat.norms._base import Norm
from harness.threat.norms._hyperplane import hyperplane_linf
from harness.threat.rng import Draws

__all__ = ["linf"]


class _Linf(Norm):
    name: ClassVar[str] = "Linf"

    def size(self, delta: Tensor) -> Tensor:
        return self.flat(delta).abs().amax(dim=1)

    def dual_size(self, grad: Tensor) -> Tensor:
        return self.flat(grad).abs().sum(dim=1)

    def project(self, points: Tensor, x: Tensor, eps: float) -> Tensor:
        return self.onto(x, eps)(points)

    def onto(self, x: Tensor, eps: float) -> Callable[[Tensor], Tensor]:
        low, high = (x - eps).clamp_(0, 1), (x + eps).clamp_(0, 1)
        return lambda points: torch.clamp(points, min=low, max=high)

    def steepest(self, grad: Tensor) -> Tensor:
        return grad.sign()

    def noise(self, x: Tensor, draws: Draws, counter: int) -> Tensor:
        return 2 * draws.uniform(counter, tuple(x.shape[1:])).to(x) - 1

    def inside(self, x: Tensor, eps: float, draws: Draws, counter: int) -> Tensor:
        return (x + eps * self.noise(x, draws, counter)).clamp(0, 1)

    def hyperplane(self, points: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return hyperplane_linf(points, w, b)


linf = _Linf()
