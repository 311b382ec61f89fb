"""The maximum norm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from harness.threat.norms._base import Norm
from harness.threat.norms._hyperplane import hyperplane_linf
from harness.threat.norms._moves import Moves, corners, signs, square_side, stripes, window
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
        return hyperplane_linf(self.flat(points), self.flat(w), b).view_as(points)

    def moves(self) -> Moves:
        return _Faces()

    def tolerance(self, eps: float) -> float:
        # a maximum sums nothing up
        return 1e-6


class _Faces(Moves):
    """In a window, each channel goes to the upper or lower face of the ball."""

    def side(self, share: float, height: int, width: int) -> int:
        return square_side(share, height, width)

    def first(self, x: Tensor, eps: float, draws: Draws, counter: int) -> Tensor:
        return torch.add(x, stripes(x, draws, counter), alpha=eps).clamp_(0, 1).flatten(1)

    def draw(self, x: Tensor, draws: Draws, counter: int, sides: Tensor) -> dict[str, Tensor]:
        channels, height, width = x.shape[1:]
        u = draws.uniform(counter, (len(sides), 2 + channels))
        return {
            "corner": corners(u[..., :2], sides, height, width).to(x.device),
            "signs": signs(u[..., 2:]).to(x),
        }

    def candidate(
        self, x: Tensor, eps: float, best: Tensor, drawn: Mapping[str, Tensor], side: int, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        inside = drawn["corner"].unsqueeze(1) + window(side, tuple(x.shape[1:]), x.device)
        # copying images whole and indexing the copies is faster than an index into two dimensions
        flat = x.flatten(1) if rows is None else x.flatten(1).index_select(0, rows)
        centre = flat.gather(1, inside).view(len(inside), -1, side * side)
        # a step of 2 eps from any point of the ball ends on its face, so the best point does not matter
        faces = torch.add(centre, drawn["signs"].unsqueeze(2), alpha=eps).clamp_(0, 1).flatten(1)
        points = best.clone() if rows is None else best.index_select(0, rows)
        new = (faces != points.gather(1, inside)).any(dim=1)
        return points.scatter_(1, inside, faces), new


linf = _Linf()
