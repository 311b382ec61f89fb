"""Square Attack's candidates where a ball's radius is shared out over the coordinates, as in L2 and L1."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

from harness.threat.norms._moves import Moves, corners, signs, window
from harness.threat.rng import Draws

__all__ = ["Pyramids"]

_TINY = 1e-12


class Pyramids(Moves):
    """A second window is emptied, and what it held is spent on a bump in the first.

    Sizes are kept as sums of ``|delta|^order``.
    """

    order: int
    decay: int

    @abstractmethod
    def mass(self, delta: Tensor) -> Tensor:
        """Sum of ``|delta|^order`` over the last dimension."""

    @abstractmethod
    def height(self, mass: Tensor, channels: int) -> Tensor:
        """Size of a bump in one channel that may spend ``mass``."""

    @abstractmethod
    def length(self, mass: Tensor) -> Tensor:
        """Norm that belongs to a mass."""

    @abstractmethod
    def finish(self, x: Tensor, delta: Tensor, eps: float) -> Tensor:
        """The point in ball and box for a perturbation, both flat ``[n, d]``."""

    def side(self, share: float, height: int, width: int) -> int:
        side = max(round(math.sqrt(share * height * width)), 3)
        return min(side + (side + 1) % 2, height, width)

    def first(self, x: Tensor, eps: float, draws: Draws, counter: int) -> Tensor:
        channels, height, width = x.shape[1:]
        side = max(min(height, width) // 5, 1)
        margin = max((min(height, width) - 5 * side) // 2, 0)
        places = list(product(range(height // side), range(width // side)))
        u = draws.uniform(counter, (len(places), 1 + channels)).to(x.device)
        shapes = _pyramids(side, self.order, self.decay, x.dtype, x.device).view(2, side, side)
        delta = torch.zeros(x.shape, dtype=x.dtype, device=x.device)
        for tile, (row, column) in enumerate(places):
            shape = torch.where(u[:, tile, 0, None, None] > 0.5, shapes[1], shapes[0])
            top, left = margin + row * side, margin + column * side
            # the grid is shifted, so the last tiles may stick out of a small image
            place = delta[:, :, top : top + side, left : left + side]
            signed = shape[:, None] * signs(u[:, tile, 1:]).to(x)[:, :, None, None]
            place += signed[:, :, : place.shape[2], : place.shape[3]]
        return self.finish(x.flatten(1), delta.flatten(1), eps)

    def draw(self, x: Tensor, draws: Draws, counter: int, sides: Tensor) -> dict[str, Tensor]:
        channels, height, width = x.shape[1:]
        u = draws.uniform(counter, (len(sides), 5 + channels))
        return {
            "corner": corners(u[..., :2], sides, height, width).to(x.device),
            "second": corners(u[..., 2:4], sides, height, width).to(x.device),
            "turned": (u[..., 4] > 0.5).to(x.device),
            "signs": signs(u[..., 5:]).to(x),
        }

    def candidate(
        self, x: Tensor, eps: float, best: Tensor, drawn: Mapping[str, Tensor], side: int, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        channels, flat = x.shape[1], x.flatten(1)
        if rows is not None:
            flat, best = flat.index_select(0, rows), best.index_select(0, rows)
        by_channel = (len(best), channels, side * side)
        positions = window(side, tuple(x.shape[1:]), x.device)
        first, second = drawn["corner"][:, None] + positions, drawn["second"][:, None] + positions
        delta = best - flat
        spare = (eps**self.order - self.mass(delta)).clamp_(min=0).div_(channels)

        old = delta.gather(1, first).view(by_channel)
        held = self.mass(old)
        # emptied first, so that where the windows overlap nothing is counted twice
        delta.scatter_(1, first, 0.0)
        freed = held + self.mass(delta.gather(1, second).view(by_channel))
        delta.scatter_(1, second, 0.0)

        upright, turned = _pyramids(side, self.order, self.decay, x.dtype, x.device)
        shape = torch.where(drawn["turned"][:, None], turned, upright)
        bump = old.div_((self.length(held) + _TINY)[:, :, None])
        bump.addcmul_(shape[:, None], drawn["signs"][:, :, None])
        height = self.height(spare[:, None] + freed, channels)
        bump.mul_((height / (self.length(self.mass(bump)) + _TINY))[:, :, None])
        delta.scatter_(1, first, bump.flatten(1))
        points = self.finish(flat, delta, eps)
        return points, (points != best).any(dim=1)


@lru_cache(maxsize=64)
def _pyramids(side: int, order: int, decay: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A bump of norm one, a hill above a valley, and the same lying on its side: ``[2, side * side]``."""
    half = side // 2
    hill, valley = _hill(half, side, order, decay), _hill(side - half, side, order, decay)
    shape = torch.cat([hill, -valley])
    shape /= torch.linalg.vector_norm(shape, order)
    return torch.stack([shape, shape.T]).flatten(1).to(device, dtype)


def _hill(height: int, width: int, order: int, decay: int) -> Tensor:
    """Concentric steps that rise by ``1 / ring^decay`` towards the centre, of norm one."""
    row = (torch.arange(height) - height // 2).abs()
    column = (torch.arange(width) - width // 2).abs()
    rings = max(height // 2, width // 2) + 1
    rises = torch.arange(1, rings + 1, dtype=torch.float64) ** -decay
    levels = rises.flip(0).cumsum(0).flip(0)
    hill = levels[torch.maximum(row[:, None], column[None, :])]
    hill /= torch.linalg.vector_norm(hill, order)
    return hill
