"""Adversarial examples for training: few steps, no bookkeeping.

What evaluates a model is in `harness.attacks`; here a batch of examples is made as cheaply as can be,
and only the gradient with respect to the images is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from harness.threat import ThreatModel
from harness.threat.rng import Draws
from harness.util.choices import CraftingMethod, CraftingStart

__all__ = ["Crafting", "advance", "begin", "craft", "sequence"]


@dataclass(frozen=True)
class Crafting:
    """How examples are crafted.

    Attributes:
        kind: "pgd" (Madry et al. 2018, arXiv 1706.06083), "fgsm" with a random start (Wong et al. 2020,
            arXiv 2001.03994) or "r-fgsm" (Tramer et al. 2018, arXiv 1705.07204).
        steps: gradient steps; the latter two take one.
        step_size: of each, in the units of the images.
        start: a random point, or the image itself.
    """

    kind: CraftingMethod
    threat: ThreatModel
    steps: int
    step_size: float
    start: CraftingStart = "random"

    @classmethod
    def of(
        cls,
        kind: CraftingMethod,
        threat: ThreatModel,
        *,
        steps: int,
        step_size: float | None = None,
        start: CraftingStart = "random",
    ) -> Crafting:
        """With the step size of the method's paper where none is given: 2.5 eps / steps for PGD, 1.25 eps
        for FGSM, half of eps for R+FGSM (the other half is its random step)."""
        steps = steps if kind == "pgd" else 1
        factor = {"pgd": 2.5 / steps, "fgsm": 1.25, "r-fgsm": 0.5}[kind]
        return cls(kind, threat, steps, factor * threat.radius if step_size is None else step_size, start)

    def scaled(self, share: float) -> Crafting:
        """With radius and steps at that share (above 0) of their size."""
        if share == 1:
            return self
        threat = ThreatModel(self.threat.norm, f"{share * self.threat.radius:.9g}")
        return replace(self, threat=threat, step_size=share * self.step_size)


@dataclass(frozen=True)
class _Sequence(Draws):
    """Random numbers one after another, for training, where a sample needs no numbers of its own."""

    generator: torch.Generator | None = None

    def uniform(self, counter: int, shape: Sequence[int]) -> Tensor:
        return torch.rand((len(self), *shape), generator=self.generator, device=self._device, dtype=torch.float64)

    def normal(self, counter: int, shape: Sequence[int]) -> Tensor:
        return torch.randn((len(self), *shape), generator=self.generator, device=self._device, dtype=torch.float64)

    @property
    def _device(self) -> torch.device | None:
        return self.generator.device if self.generator is not None else None


def sequence(count: int, generator: torch.Generator) -> Draws:
    """Draws for a batch of ``count`` that come from a generator in sequence, on the generator's device."""
    return _Sequence(np.zeros(count, dtype=np.uint64), 0, "training", generator=generator)


def craft(
    model: nn.Module,
    x: Tensor,
    *,
    raises: Callable[[Tensor], Tensor],
    crafting: Crafting,
    generator: torch.Generator,
    forward: Callable[[Tensor], Tensor] | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """Points in the threat model around ``x`` that raise a loss.

    The model is used in the mode that it is in; its parameters get no gradient.

    Args:
        model: from images ``[n, ...]`` to logits ``[n, k]``.
        x: images in [0, 1], ``[n, ...]``.
        raises: from logits to the loss to raise, a scalar summed over the samples.
        crafting: the method.
        generator: gives the random starts; on the device of ``x``.
        forward: another forward pass through the same model; the model itself if not given.
        start: points ``[n, ...]`` to begin at; those of ``begin`` if not given.

    Returns:
        ``[n, ...]``, detached.
    """
    forward = forward or model
    points = begin(x, crafting, generator) if start is None else start
    with _without_weight_gradients(model):
        for _ in range(crafting.steps):
            leaf = points.detach().requires_grad_()
            (grad,) = torch.autograd.grad(raises(forward(leaf)), leaf)
            points = advance(points, grad, x, crafting)
    return points.detach()


def advance(points: Tensor, gradient: Tensor, x: Tensor, crafting: Crafting) -> Tensor:
    """The points ``[n, ...]`` after a step along a gradient ``[n, ...]``, inside the threat model around ``x``."""
    threat = crafting.threat
    return threat.project(threat.geometry.climb(points, gradient, crafting.step_size), x)


def begin(x: Tensor, crafting: Crafting, generator: torch.Generator) -> Tensor:
    """Where crafting begins, ``[n, ...]``; the generator is on the device of ``x``."""
    threat, draws = crafting.threat, sequence(len(x), generator)
    geometry = threat.geometry
    if crafting.start == "clean":
        return x
    if crafting.kind == "r-fgsm":
        # a step of norm one in a random direction takes what the gradient step leaves of the radius
        direction = geometry.steepest(geometry.noise(x, draws, 0))
        return threat.project(x + (threat.radius - crafting.step_size) * direction, x)
    return geometry.inside(x, threat.radius, draws, 0)


@contextmanager
def _without_weight_gradients(model: nn.Module) -> Iterator[None]:
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
