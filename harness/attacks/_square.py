"""How Square Attack makes its candidates: one kind of move per norm.

A move changes the best point so far inside square windows. All samples share a window's side, which
depends on the query alone; place, signs and orientation are each sample's own. Points and windows are
flat (``[n, d]`` with ``d = C*H*W``), so that a window is a row of positions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

from harness.attacks._base import State
from harness.threat.norms import NORMS
from harness.threat.rng import Draws

__all__ = ["MOVES", "Moves"]

_TINY = 1e-12
# keeps a projected point inside the l1 ball when float32 rounds its distance
_L1_SHRINK = 1 - 1e-6


class Moves(ABC):
    """The candidates of one norm; stateless."""

    @abstractmethod
    def side(self, share: float, height: int, width: int) -> int:
        """Side in pixels of a window that covers about ``share`` of the image."""

    @abstractmethod
    def first(self, x: Tensor, eps: float, draws: Draws, counter: int) -> Tensor:
        """The first point per sample: ``[n, d]``."""

    @abstractmethod
    def draw(self, x: Tensor, draws: Draws, counter: int, sides: Tensor) -> State:
        """All that is random in the next ``len(sides)`` queries: tensors ``[n, len(sides), ...]``."""

    @abstractmethod
    def candidate(
        self, x: Tensor, eps: float, best: Tensor, drawn: State, side: int, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Points to ask the model about.

        Args:
            x: clean images ``[n, C, H, W]``. best: points ``[n, d]``. drawn: the draws of each query, ``[m, ...]``.
            rows: int64 ``[m]``, which sample each query is of; None where it is one of each.

        Returns:
            The points ``[m, d]``, and which of them are not the best ones themselves, bool ``[m]``.
        """


class _Faces(Moves):
    """Linf: in a window, each channel goes to the upper or lower face of the ball."""

    def side(self, share: float, height: int, width: int) -> int:
        return min(max(round(math.sqrt(share * height * width)), 1), height, width)

    def first(self, x: Tensor, eps: float, draws: Draws, counter: int) -> Tensor:
        channels, _, width = x.shape[1:]
        stripes = _signs(draws.uniform(counter, (channels, 1, width))).to(x)
        return torch.add(x, stripes, alpha=eps).clamp_(0, 1).flatten(1)

    def draw(self, x: Tensor, draws: Draws, counter: int, sides: Tensor) -> State:
        channels, height, width = x.shape[1:]
        u = draws.uniform(counter, (len(sides), 2 + channels))
        return {
            "corner": _corners(u[..., :2], sides, height, width).to(x.device),
            "signs": _signs(u[..., 2:]).to(x),
        }

    def candidate(
        self, x: Tensor, eps: float, best: Tensor, drawn: State, side: int, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        window = drawn["corner"].unsqueeze(1) + _window(side, tuple(x.shape[1:]), x.device)
        # copying images whole and looking into the copies is faster than an index into two dimensions
        flat = x.flatten(1) if rows is None else x.flatten(1).index_select(0, rows)
        centre = flat.gather(1, window).view(len(window), -1, side * side)
        # a step of 2 eps from any point of the ball ends on its face, so the best point does not matter
        faces = torch.add(centre, drawn["signs"].unsqueeze(2), alpha=eps).clamp_(0, 1).flatten(1)
        points = best.clone() if rows is None else best.index_select(0, rows)
        new = (faces != points.gather(1, window)).any(dim=1)
        return points.scatter_(1, window, faces), new


class _Pyramids(Moves):
    """L2 and L1: a second window is emptied, and what it held is spent on a bump in the first.

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
            signed = shape[:, None] * _signs(u[:, tile, 1:]).to(x)[:, :, None, None]
            place += signed[:, :, : place.shape[2], : place.shape[3]]
        return self.finish(x.flatten(1), delta.flatten(1), eps)

    def draw(self, x: Tensor, draws: Draws, counter: int, sides: Tensor) -> State:
        channels, height, width = x.shape[1:]
        u = draws.uniform(counter, (len(sides), 5 + channels))
        return {
            "corner": _corners(u[..., :2], sides, height, width).to(x.device),
            "second": _corners(u[..., 2:4], sides, height, width).to(x.device),
            "turned": (u[..., 4] > 0.5).to(x.device),
            "signs": _signs(u[..., 5:]).to(x),
        }

    def candidate(
        self, x: Tensor, eps: float, best: Tensor, drawn: State, side: int, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        channels, flat = x.shape[1], x.flatten(1)
        if rows is not None:
            flat, best = flat.index_select(0, rows), best.index_select(0, rows)
        by_channel = (len(best), channels, side * side)
        positions = _window(side, tuple(x.shape[1:]), x.device)
        window, second = drawn["corner"][:, None] + positions, drawn["second"][:, None] + positions
        delta = best - flat
        spare = (eps**self.order - self.mass(delta)).clamp_(min=0).div_(channels)

        old = delta.gather(1, window).view(by_channel)
        held = self.mass(old)
        # emptied first, so that where the windows overlap nothing is counted twice
        delta.scatter_(1, window, 0.0)
        freed = held + self.mass(delta.gather(1, second).view(by_channel))
        delta.scatter_(1, second, 0.0)

        upright, turned = _pyramids(side, self.order, self.decay, x.dtype, x.device)
        shape = torch.where(drawn["turned"][:, None], turned, upright)
        bump = old.div_((self.length(held) + _TINY)[:, :, None])
        bump.addcmul_(shape[:, None], drawn["signs"][:, :, None])
        height = self.height(spare[:, None] + freed, channels)
        bump.mul_((height / (self.length(self.mass(bump)) + _TINY))[:, :, None])
        delta.scatter_(1, window, bump.flatten(1))
        points = self.finish(flat, delta, eps)
        return points, (points != best).any(dim=1)


class _L2Pyramids(_Pyramids):
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


class _L1Pyramids(_Pyramids):
    """The l1 version of Croce & Hein 2021: bumps overshoot and are projected onto ball and box."""

    order = 1
    decay = 4

    def mass(self, delta: Tensor) -> Tensor:
        return delta.abs().sum(dim=-1)

    def height(self, mass: Tensor, channels: int) -> Tensor:
        return mass * channels

    def length(self, mass: Tensor) -> Tensor:
        return mass

    def finish(self, x: Tensor, delta: Tensor, eps: float) -> Tensor:
        return NORMS["L1"].project(x + delta, x, eps * _L1_SHRINK)


MOVES: dict[str, Moves] = {"Linf": _Faces(), "L2": _L2Pyramids(), "L1": _L1Pyramids()}


def _signs(u: Tensor) -> Tensor:
    return torch.where(u < 0.5, -1.0, 1.0)


def _corners(u: Tensor, sides: Tensor, height: int, width: int) -> Tensor:
    """Flat position of the upper left pixel, from ``u [..., len(sides), 2]``.

    As in the reference, the last place in each direction is never drawn.
    """
    top = (u[..., 0] * (height - sides)).long()
    left = (u[..., 1] * (width - sides)).long()
    return top * width + left


@lru_cache(maxsize=64)
def _window(side: int, shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Flat positions in an image of the pixels of a window at its upper left corner, all channels."""
    channels, height, width = shape
    pixels = torch.arange(channels * height * width, device=device).view(shape)
    return pixels[:, :side, :side].flatten()


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
