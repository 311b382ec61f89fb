"""How a random search in square windows makes its candidates (Square Attack): one kind of move per norm.

A move changes the best point so far inside square windows. All samples share a window's side, which
depends on the query alone; place, signs and orientation are each sample's own. Points and windows are
flat (``[n, d]`` with ``d = C*H*W``), so that a window is a row of positions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from harness.threat.rng import Draws

__all__ = ["Moves", "Patches", "corners", "signs", "square_side", "stripes", "window"]

# rounds of bisection for the height of a patch, and the share of the full radius that counts as all of it
_ROUNDS, _FULL = 16, 0.999


class Moves(ABC):
    """The candidates of one norm; stateless. No sample's candidates depend on another sample."""

    @abstractmethod
    def side(self, share: float, height: int, width: int) -> int:
        """Side in pixels of a window that covers about ``share`` of the image."""

    @abstractmethod
    def first(self, x: Tensor, eps: float, draws: Draws, counter: int) -> Tensor:
        """The first point per sample: ``[n, d]``, from images ``[n, C, H, W]``."""

    @abstractmethod
    def draw(self, x: Tensor, draws: Draws, counter: int, sides: Tensor) -> dict[str, Tensor]:
        """All that is random in the next ``len(sides)`` queries: tensors ``[n, len(sides), ...]``."""

    @abstractmethod
    def candidate(
        self, x: Tensor, eps: float, best: Tensor, drawn: Mapping[str, Tensor], side: int, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Points to try the model on.

        Args:
            x: clean images ``[n, C, H, W]``. best: points ``[n, d]``. drawn: the draws of each query, ``[m, ...]``.
            rows: int64 ``[m]``, which sample each query is of; None where it is one of each.

        Returns:
            The points ``[m, d]``, and which of them are not the best ones themselves, bool ``[m]``.
        """


class _Geometry(Protocol):
    """What `Patches` needs of a norm."""

    def size(self, delta: Tensor) -> Tensor: ...

    def steepest(self, grad: Tensor) -> Tensor: ...

    def project(self, points: Tensor, x: Tensor, eps: float) -> Tensor: ...


class Patches(Moves):
    """For any norm: a window moves as far as the ball allows in the steepest direction of random signs.

    Where the rest of the perturbation leaves too little of the radius for that, a second window is emptied first.
    """

    def __init__(self, norm: _Geometry) -> None:
        self._norm = norm

    def side(self, share: float, height: int, width: int) -> int:
        return square_side(share, height, width)

    def first(self, x: Tensor, eps: float, draws: Draws, counter: int) -> Tensor:
        delta = self._norm.steepest(stripes(x, draws, counter).expand_as(x).contiguous())
        return self._norm.project(torch.add(x, delta, alpha=eps), x, eps).flatten(1)

    def draw(self, x: Tensor, draws: Draws, counter: int, sides: Tensor) -> dict[str, Tensor]:
        channels, height, width = x.shape[1:]
        u = draws.uniform(counter, (len(sides), 4 + channels))
        return {
            "corner": corners(u[..., :2], sides, height, width).to(x.device),
            "second": corners(u[..., 2:4], sides, height, width).to(x.device),
            "signs": signs(u[..., 4:]).to(x),
        }

    def candidate(
        self, x: Tensor, eps: float, best: Tensor, drawn: Mapping[str, Tensor], side: int, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if rows is not None:
            x, best = x.index_select(0, rows), best.index_select(0, rows)
        positions = window(side, tuple(x.shape[1:]), x.device)
        patch, second = drawn["corner"][:, None] + positions, drawn["second"][:, None] + positions
        values = drawn["signs"][:, :, None].expand(-1, -1, side * side).flatten(1)
        direction = self._norm.steepest(torch.zeros_like(best).scatter_(1, patch, values).view_as(x))
        rest = (best - x.flatten(1)).scatter_(1, patch, 0.0)
        emptied = rest.scatter(1, second, 0.0).view_as(x)
        rest = rest.view_as(x)
        height, emptied_height = self._height(rest, direction, eps), self._height(emptied, direction, eps)
        alone = (height >= _FULL * eps)[:, None, None, None]
        delta = torch.where(alone, rest, emptied)
        delta += torch.where(alone, height[:, None, None, None], emptied_height[:, None, None, None]) * direction
        points = self._norm.project(x + delta, x, eps).flatten(1)
        return points, (points != best).any(dim=1)

    def _height(self, rest: Tensor, direction: Tensor, eps: float) -> Tensor:
        """How far each ``direction`` can be added to ``rest`` within ``eps``, at most ``eps``: ``[m]``."""
        low, high = torch.zeros_like(rest.flatten(1)[:, 0]), torch.full_like(rest.flatten(1)[:, 0], eps)
        fits = self._norm.size(rest + eps * direction) <= eps * (1 + 1e-6)
        for _ in range(_ROUNDS):
            middle = (low + high) / 2
            inside = self._norm.size(rest + middle[:, None, None, None] * direction) <= eps
            low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        return torch.where(fits, torch.full_like(low, eps), low)


def square_side(share: float, height: int, width: int) -> int:
    """Side of a square that covers about ``share`` of an image, at least 1."""
    return min(max(round(math.sqrt(share * height * width)), 1), height, width)


def stripes(x: Tensor, draws: Draws, counter: int) -> Tensor:
    """A random sign per channel and column: ``[n, C, 1, W]``."""
    channels, _, width = x.shape[1:]
    return signs(draws.uniform(counter, (channels, 1, width))).to(x)


def signs(u: Tensor) -> Tensor:
    """Random signs from uniform numbers."""
    return torch.where(u < 0.5, -1.0, 1.0)


def corners(u: Tensor, sides: Tensor, height: int, width: int) -> Tensor:
    """Flat position of the upper left pixel, from ``u [..., len(sides), 2]``.

    As in the reference, the last place in each direction is never drawn.
    """
    top = (u[..., 0] * (height - sides)).long()
    left = (u[..., 1] * (width - sides)).long()
    return top * width + left


@lru_cache(maxsize=64)
def window(side: int, shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Flat positions in an image of the pixels of a window at its upper left corner, all channels."""
    channels, height, width = shape
    pixels = torch.arange(channels * height * width, device=device).view(shape)
    return pixels[:, :side, :side].flatten()
