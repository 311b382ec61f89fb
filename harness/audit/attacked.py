"""What indicators of attack failure are given: a model, the outcome of attacks, and simple attacks of their own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from harness.threat import ThreatModel
from harness.threat.norms import column
from harness.threat.rng import Draws, sample_keys
from harness.util.images import Images

__all__ = ["Attacked"]

_FEWEST, _MOST, _SHARE = 4, 16, 8
"""Samples that indicators attack: an eighth of all, but so many at least and at most."""

_STEPS = 10


@dataclass(frozen=True, eq=False)
class Attacked:
    """An outcome of attacks.

    Attributes:
        model: from images to logits, as it was attacked.
        x: ``[n, ...]`` clean images, on the CPU. y, predicted: int64 ``[n]``, their classes and the model's.
        robust: bool ``[n]``, the samples that survived.
        points: ``[n, ...]``, the adversarial example of each broken sample; the clean image of others.
        adversarial: int64 ``[n]``, the model's class on ``points`` of broken samples.
        threat: what the model was attacked under.
        device: where the model is.
        batch_size: how many images go through the model together, at most.
    """

    model: nn.Module
    x: Images
    y: Tensor
    predicted: Tensor
    robust: Tensor
    points: Images
    adversarial: Tensor
    threat: ThreatModel
    device: torch.device
    batch_size: int = 128

    @property
    def correct(self) -> Tensor:
        """Bool ``[n]``: the samples that are classified correctly without attack."""
        return self.predicted == self.y

    @property
    def broken(self) -> Tensor:
        """Bool ``[n]``: the samples for which there is an adversarial example."""
        return self.correct & ~self.robust

    @cached_property
    def survivors(self) -> tuple[Tensor, Tensor]:
        """Images and classes of some survivors, on the device."""
        return self.some(self.robust)

    def some(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Images and classes of some of the samples where ``mask`` is true, at equal distances, on the device."""
        rows = self.rows(mask)
        return self.x[rows].to(self.device), self.y[rows].to(self.device)

    def rows(self, mask: Tensor) -> Tensor:
        """Positions of some of the samples where ``mask`` is true."""
        found = mask.nonzero().squeeze(1)
        count = min(len(found), max(_FEWEST, min(_MOST, len(self.x) // _SHARE)))
        return found[torch.linspace(0, len(found) - 1, count).round().long()] if count else found

    def ask(self, x: Tensor) -> Tensor:
        """Logits ``[m, k]`` of images ``[m, ...]``, without gradients."""
        with torch.no_grad():
            parts = [self.model(part.clone()) for part in torch.split(x, self.batch_size)]
        return torch.cat(parts).detach()

    def misclassified(self, points: Tensor, y: Tensor) -> Tensor:
        """Bool ``[m]``: the points with finite logits and another class."""
        logits = self.ask(points)
        return (logits.argmax(dim=1) != y) & torch.isfinite(logits).all(dim=1)

    def draws(self, x: Tensor) -> Draws:
        """Random numbers that depend on the images alone."""
        return Draws(sample_keys(x), 0, "audit, after the attack")

    def climbed(self, x: Tensor, y: Tensor, threat: ThreatModel, *, steps: int = _STEPS) -> Tensor:
        """Which samples a short PGD on the margin breaks, bool ``[m]``; one step is FGSM."""
        size = threat.radius if steps == 1 else 2.5 * threat.radius / steps
        point, broken = x, torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for _ in range(steps):
            climbed = threat.geometry.climb(point, self._gradient(point, y), size)
            point = threat.project(climbed, x)
            broken |= self.misclassified(point, y)
        return broken

    def unbounded(self, x: Tensor, y: Tensor, *, steps: int = 12, size: float = 0.15) -> Tensor:
        """Which samples steps along the sign of the gradient break that stay in [0, 1] only, bool ``[m]``."""
        point, broken = x, torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for _ in range(steps):
            point = (point + size * self._gradient(point, y).sign()).clamp(0, 1)
            broken |= self.misclassified(point, y)
        return broken

    def _gradient(self, points: Tensor, y: Tensor) -> Tensor:
        return torch.cat([self._gradient_of(*part) for part in self._parts(points, y)])

    def _parts(self, points: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
        return list(zip(torch.split(points, self.batch_size), torch.split(y, self.batch_size), strict=True))

    def _gradient_of(self, points: Tensor, y: Tensor) -> Tensor:
        leaf = points.detach().clone().requires_grad_()
        logits = self.model(leaf.clone())
        own = logits.gather(1, y[:, None]).squeeze(1)
        others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
        (gradient,) = torch.autograd.grad((others - own).sum(), leaf)
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        # so that squares of tiny numbers are not zero
        largest = gradient.flatten(1).abs().amax(1).clamp(min=torch.finfo(gradient.dtype).tiny)
        return gradient / column(largest, gradient)
