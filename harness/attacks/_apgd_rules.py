"""How APGD moves and adapts: with momentum, or in sparse norms (L1) in sparse steps.

A rule keeps what it knows of a sample in the attack's state, beside what both rules keep there: ``point``,
``grad``, and the best point so far (``best``, ``best_grad``, ``best_loss``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.attacks._base import State
from harness.threat.norms import Norm, column

__all__ = ["Momentum", "Rule", "Sparse"]

# shares of the iterations: the first window between checkpoints, how much shorter each next one is, the least
_FIRST, _SHORTER, _LEAST = 0.22, 0.03, 0.06
_INERTIA = 0.25

_SPARSE_WINDOW = 0.04
_SHARE, _SHARE_DIVISOR = 0.2, 1.5
_SPARSER, _STEP_DIVISOR, _STEP_RANGE = 0.95, 1.5, 10.0
_TINY = 1e-10


@dataclass(frozen=True)
class Rule(ABC):
    """Steps and their adaptation in one phase of one radius.

    Attributes:
        geometry: the norm.
        rho: share of the steps between two checkpoints that must have raised the loss.
    """

    geometry: Norm
    rho: float

    @abstractmethod
    def windows(self, steps: int) -> dict[int, int]:
        """Checkpoints of a phase: the iteration after which one is made, and how many iterations it covers."""

    @abstractmethod
    def begin(self, state: State, x: Tensor, radius: float, warm: bool) -> None:
        """Forget the last phase; ``warm`` unless the point was drawn at random in the ball."""

    @abstractmethod
    def move(self, state: State, x: Tensor, radius: float, first: bool) -> Tensor:
        """The next point."""

    @abstractmethod
    def learn(self, state: State, x: Tensor, radius: float, loss: Tensor, window: int) -> Tensor | None:
        """Take in the loss at the new point and, after a ``window`` of iterations, adapt the step.

        Returns:
            At a checkpoint, which samples go back to their best point: bool ``[n]``.
        """


class Momentum(Rule):
    """Steps with momentum; halved where progress ends (Croce & Hein 2020, sections 3.1 and 3.2)."""

    def windows(self, steps: int) -> dict[int, int]:
        first, shorter, least = (max(int(share * steps), 1) for share in (_FIRST, _SHORTER, _LEAST))
        found: dict[int, int] = {}
        window, at = first, first - 1
        while at < steps:
            found[at] = window
            window = max(window - shorter, least)
            at += window
        return found

    def begin(self, state: State, x: Tensor, radius: float, warm: bool) -> None:
        loss = state["best_loss"]
        state["previous"] = state["point"].clone()
        state["step_size"] = torch.full_like(loss, 2 * radius)
        # the first step of a run counts as a rise where its loss is positive: the reference does so
        state["last_loss"] = torch.zeros_like(loss)
        state["rises"] = torch.zeros_like(loss, dtype=torch.int64)
        state["checked_loss"] = loss.clone()
        state["halved"] = torch.ones_like(loss, dtype=torch.bool)

    def move(self, state: State, x: Tensor, radius: float, first: bool) -> Tensor:
        point, previous = state["point"], state["previous"]
        inertia = 0.0 if first else _INERTIA
        # the buffer of the previous point is free once the drift is known
        drift = torch.sub(point, previous, out=previous).mul_(inertia)
        state["previous"] = point
        project = self.geometry.onto(x, radius)
        ahead = project(self.geometry.steepest(state["grad"]).mul_(column(state["step_size"], x)).add_(point))
        return project(ahead.sub_(point).mul_(1 - inertia).add_(point).add_(drift))

    def learn(self, state: State, x: Tensor, radius: float, loss: Tensor, window: int) -> Tensor | None:
        state["rises"] += loss > state["last_loss"]
        state["last_loss"] = loss
        if not window:
            return None
        best = state["best_loss"]
        stuck = (state["checked_loss"] >= best) & ~state["halved"]
        halve = (state["rises"] <= self.rho * window) | stuck
        state["step_size"] = torch.where(halve, state["step_size"] / 2, state["step_size"])
        state["rises"].zero_()
        state["checked_loss"] = best.clone()
        state["halved"] = halve
        return halve


class Sparse(Rule):
    """Sparse steps whose width follows the sparsity of the best point (Croce & Hein 2021, section 4).

    ``rho`` has no part in it.
    """

    def windows(self, steps: int) -> dict[int, int]:
        window = max(int(_SPARSE_WINDOW * steps), 1)
        return dict.fromkeys(range(window - 1, steps, window), window)

    def begin(self, state: State, x: Tensor, radius: float, warm: bool) -> None:
        loss, pixels = state["best_loss"], x[0].numel()
        state["step_size"] = torch.full_like(loss, radius)
        state["width"] = _changed(state["point"], x) if warm else torch.full_like(loss, pixels)
        state["share"] = state["width"] / pixels / _SHARE_DIVISOR if warm else torch.full_like(loss, _SHARE)

    def move(self, state: State, x: Tensor, radius: float, first: bool) -> Tensor:
        size = state["grad"].abs()
        ranked = size.flatten(1).sort(dim=1).values
        pixels = ranked.shape[1]
        cut = ((1 - state["share"]) * pixels).clamp(min=0, max=pixels - 1).long()
        least = column(ranked.gather(1, cut[:, None]), x)
        # ties with the smallest gradient that counts are let in
        step = state["grad"].sign().mul_(size >= least)
        width = self.geometry.size(step) + _TINY
        step.mul_(column(state["step_size"], x)).div_(column(width, x)).add_(state["point"])
        return self.geometry.project(step, x, radius)

    def learn(self, state: State, x: Tensor, radius: float, loss: Tensor, window: int) -> Tensor | None:
        if not window:
            return None
        width = _changed(state["best"], x)
        sparser = width / state["width"] < _SPARSER
        shorter = (state["step_size"] / _STEP_DIVISOR).clamp_(min=radius / _STEP_RANGE)
        state["step_size"] = torch.where(sparser, radius, shorter)
        state["share"] = width / x[0].numel() / _SHARE_DIVISOR
        state["width"] = width
        return sparser


def _changed(points: Tensor, x: Tensor) -> Tensor:
    """How many values of each sample differ from the clean image: ``[n]``, as floating point numbers."""
    return (points != x).flatten(1).sum(dim=1).to(x)
