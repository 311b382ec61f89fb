"""What audit checks are given: a model, some images, and what is measured once for all checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from harness.threat import ThreatModel
from harness.threat.rng import Draws, sample_keys

__all__ = ["FEW", "SAMPLES", "Slope", "Subject", "apart", "spread"]

SAMPLES = 32
"""How many samples checks are given, where there are so many."""

FEW = 16
"""How many of them checks of gradients take."""

_MOST_ROWS = 256


@dataclass(frozen=True)
class Slope:
    """Gradients of the margin between the two largest logits.

    Attributes:
        points: ``[m, ...]`` where they were taken. first, second: int64 ``[m]``, the two classes.
        logits: ``[m, k]``, of the pass that recorded gradients.
        gradient: ``[m, ...]``, None where the output has none or the backward pass fails.
    """

    points: Tensor
    first: Tensor
    second: Tensor
    logits: Tensor
    gradient: Tensor | None

    def margin(self, logits: Tensor) -> Tensor:
        """The margin in float64, ``[m]``, of other logits ``[m, k]`` of the same rows."""
        wide = logits.double()
        return (wide.gather(1, self.first[:, None]) - wide.gather(1, self.second[:, None])).squeeze(1)


@dataclass(frozen=True, eq=False)
class Subject:
    """What a check is given.

    Attributes:
        model: from images to logits. A check leaves it as it is.
        x: up to `SAMPLES` images, ``[n, ...]`` in [0, 1], on the model's device: the first, the last, and others at
            equal distances between them.
        y: their classes, int64 ``[n]``.
        logits: what the model answers on them, ``[n, k]``, detached.
        threat: what the model will be attacked under.
        expects_random: whether the attacks average over a model's randomness.
        batch_size: how many images an attack sends through the model together, at most.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    logits: Tensor
    threat: ThreatModel
    expects_random: bool = False
    batch_size: int = 128

    def ask(self, x: Tensor) -> Tensor:
        """Logits ``[m, k]`` of images ``[m, ...]``, without gradients, in batches of at most `batch_size` rows.

        The model is given copies, as it may change them.
        """
        with torch.no_grad():
            parts = [self.model(part.clone()) for part in torch.split(x, min(self.batch_size, _MOST_ROWS))]
        return torch.cat(parts).detach()

    @property
    def working_rows(self) -> int:
        """The number of rows of a full batch."""
        return min(self.batch_size, _MOST_ROWS)

    @cached_property
    def points(self) -> Tensor:
        """A random point inside the threat model for each image, ``[n, ...]``, the same in every run."""
        draws = Draws(sample_keys(self.x), 0, "audit")
        return self.threat.geometry.inside(self.x, self.threat.radius, draws, 0).to(self.x)

    @cached_property
    def at_points(self) -> Tensor:
        """The answers at `points`, ``[n, k]``, in the full batch."""
        rows, answers = self.full_batch
        nearby = rows >= len(self.x)
        return torch.empty_like(self.logits).index_copy(0, rows[nearby] - len(self.x), answers[nearby])

    @cached_property
    def full_batch(self) -> tuple[Tensor, Tensor]:
        """A batch as large as those of an attack, of `x` and `points` in reversed order: int64 ``[m]`` positions among
        both, one after the other, and the answers ``[m, k]``."""
        size = 2 * len(self.x)
        rows = torch.arange(max(size, self.working_rows), device=self.x.device).flip(0) % size
        return rows, self.ask(torch.cat([self.x, self.points])[rows])

    @cached_property
    def reach(self) -> float:
        """The change of every pixel that has the size of the radius, at most 0.1: the radius itself in Linf."""
        everywhere = torch.ones_like(self.x[:1])
        return min(0.1, self.threat.radius / float(self.threat.geometry.size(everywhere)))

    @cached_property
    def slope(self) -> Slope:
        """The gradients at the first `FEW` images, moved off the ends of [0, 1] by half of `reach`."""
        return self.slope_at(self.x[:FEW].clamp(self.reach / 2, 1 - self.reach / 2))

    @cached_property
    def nearby_slope(self) -> Slope:
        """The gradients at the first `FEW` random points."""
        return self.slope_at(self.points[:FEW])

    def slope_at(self, points: Tensor) -> Slope:
        """The gradients at ``points [m, ...]``."""
        parts = [self._slope(part) for part in torch.split(points, self.working_rows)]
        gradients = [part.gradient for part in parts]
        whole = [gradient for gradient in gradients if gradient is not None]

        def joined(of: Callable[[Slope], Tensor]) -> Tensor:
            return torch.cat([of(part) for part in parts])

        return Slope(
            points,
            joined(lambda part: part.first),
            joined(lambda part: part.second),
            joined(lambda part: part.logits),
            torch.cat(whole) if len(whole) == len(gradients) else None,
        )

    def _slope(self, points: Tensor) -> Slope:
        with torch.enable_grad():
            leaf = points.detach().clone().requires_grad_()
            # a copy, so that a model which works in place changes no leaf
            logits = self.model(leaf.clone())
            first, second = logits.detach().topk(2, dim=1).indices.unbind(1)
            margin = logits.gather(1, first[:, None]) - logits.gather(1, second[:, None])
            gradient = _gradient(margin.sum(), leaf)
        return Slope(points, first, second, logits.detach(), gradient)


def _gradient(value: Tensor, leaf: Tensor) -> Tensor | None:
    if not value.requires_grad:
        return None
    try:
        (gradient,) = torch.autograd.grad(value, leaf, allow_unused=True)
    except RuntimeError:  # the attack's own passes say what went wrong, with the call that made them
        return None
    return gradient


def spread(logits: Tensor) -> Tensor:
    """The largest minus the smallest logit of each row, float64 ``[n]``."""
    wide = logits.double()
    return wide.amax(1) - wide.amin(1)


def apart(a: Tensor, b: Tensor) -> Tensor:
    """How far answers ``[n, k]`` to the same images lie apart, in units of their spread: float64 ``[n]``.

    Infinite where one of them is not finite.
    """
    scale = torch.maximum(spread(a), 1e-6 * a.double().abs().amax(1)).clamp(min=torch.finfo(torch.float32).tiny)
    return ((a.double() - b.double()).abs().amax(1) / scale).nan_to_num(nan=torch.inf)
