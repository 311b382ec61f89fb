"""What indicators of attack failure are given: a model, the outcome of attacks, and simple attacks of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.audit import trials
from harness.audit.flags import Flag, FlagKind
from harness.audit.trials import Among, Trial
from harness.threat import ThreatModel
from harness.threat.norms import column
from harness.threat.rng import Draws, sample_keys
from harness.util.images import Images

__all__ = ["Attacked", "Indicator"]

_STEPS = 10

_FEWEST_ROWS = 16
"""Smaller batches are filled up: libraries choose their routines by the number of rows, and others round otherwise."""


@dataclass(frozen=True, eq=False)
class Attacked:
    """An outcome of attacks.

    Attributes:
        model: from images to logits, as it was attacked.
        x: ``[n, ...]`` clean images, on the CPU. index: int64 ``[n]``, their positions in the data set.
        y, predicted: int64 ``[n]``, their classes and the model's.
        robust: bool ``[n]``, the samples that survived.
        points: ``[n, ...]``, the adversarial example of each broken sample; the clean image of others.
        adversarial: int64 ``[n]``, the model's class on ``points`` of broken samples.
        threat: what the model was attacked under.
        total: how many samples the evaluation has, if these are a shard's of it.
        differentiable: whether the model has gradients; indicators that need some try nothing where it has none.
        device: where the model is.
        batch_size: how many images go through the model together, at most.
    """

    model: nn.Module
    x: Images
    index: np.ndarray[Any, Any]
    y: Tensor
    predicted: Tensor
    robust: Tensor
    points: Images
    adversarial: Tensor
    threat: ThreatModel
    total: int
    differentiable: bool
    device: torch.device
    batch_size: int = 128

    def rows(self, among: Among) -> Tensor:
        """Positions of some of these samples: which ones depends on no other shard."""
        correct = self.predicted == self.y
        masks = {
            "all": torch.ones_like(correct),
            "correct": correct,
            "survivors": self.robust,
            "broken": correct & ~self.robust,
        }
        found = masks[among].nonzero().squeeze(1)
        taken = trials.order(self.index[found.numpy()])[: trials.most(self.total)]
        return found[torch.from_numpy(taken)]

    def samples(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images and classes, on the device."""
        return self.x[rows].to(self.device), self.y[rows].to(self.device)

    def trials(self, indicator: str, among: Among, rows: Tensor, outcomes: Mapping[str, Tensor]) -> list[Trial]:
        """The trials of an indicator on ``rows``, with the outcomes bool ``[m]`` of each."""
        lists = {name: outcome.tolist() for name, outcome in outcomes.items()}
        return [
            Trial(
                indicator=indicator,
                among=among,
                index=index,
                outcomes={name: outcome[place] for name, outcome in lists.items()},
            )
            for place, index in enumerate(self.index[rows.numpy()].tolist())
        ]

    def ask(self, x: Tensor) -> Tensor:
        """Logits ``[m, k]`` of images ``[m, ...]``, without gradients."""
        with torch.no_grad():
            parts = [self.model(self._filled(part))[: len(part)] for part in torch.split(x, self.batch_size)]
        return torch.cat(parts).detach()

    def misclassified(self, points: Tensor, y: Tensor) -> Tensor:
        """Bool ``[m]``: the points with finite logits and another class."""
        return _wrong(self.ask(points), y)

    def draws(self, x: Tensor) -> Draws:
        """Random numbers that depend on the images alone."""
        return Draws(sample_keys(x), 0, "audit, after the attack")

    def climbed(self, x: Tensor, y: Tensor, threat: ThreatModel, *, steps: int = _STEPS) -> Tensor:
        """Which samples a short PGD on the margin breaks, bool ``[m]``; one step is FGSM."""
        size = threat.radius if steps == 1 else 2.5 * threat.radius / steps

        def step(point: Tensor, gradient: Tensor) -> Tensor:
            return threat.project(threat.geometry.climb(point, gradient, size), x)

        return self._broken_by(step, steps, x, y)

    def unbounded(self, x: Tensor, y: Tensor, *, steps: int = 12, size: float = 0.15) -> Tensor:
        """Which samples steps along the sign of the gradient break that stay in [0, 1] only, bool ``[m]``."""
        return self._broken_by(lambda point, gradient: (point + size * gradient.sign()).clamp(0, 1), steps, x, y)

    def _broken_by(self, step: Callable[[Tensor, Tensor], Tensor], steps: int, x: Tensor, y: Tensor) -> Tensor:
        """Which samples are misclassified at some point on the way that begins at ``x``, bool ``[m]``."""
        point, broken = x, torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for _ in range(steps):
            wrong, gradient = self._classified(point, y)
            broken |= wrong
            point = step(point, gradient)
        return broken | self.misclassified(point, y)

    def _classified(self, points: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """By one pass: which points are misclassified, bool ``[m]``, and the gradients of the margin ``[m, ...]``."""
        batches = zip(torch.split(points, self.batch_size), torch.split(y, self.batch_size), strict=True)
        wrong, gradients = zip(*(self._classified_batch(*batch) for batch in batches), strict=True)
        return torch.cat(wrong), torch.cat(gradients)

    def _classified_batch(self, points: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        count = len(points)
        leaf, y = self._filled(points.detach()).requires_grad_(), self._filled(y)
        logits = self.model(leaf.clone())
        own = logits.gather(1, y[:, None]).squeeze(1)
        others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
        (gradient,) = torch.autograd.grad((others - own).sum(), leaf)
        gradient = gradient[:count].nan_to_num(0.0, 0.0, 0.0)
        # so that squares of tiny numbers are not zero
        largest = gradient.flatten(1).abs().amax(1).clamp(min=torch.finfo(gradient.dtype).tiny)
        return _wrong(logits.detach(), y)[:count], gradient / column(largest, gradient)

    def _filled(self, rows: Tensor) -> Tensor:
        """A copy, in which rows are repeated until there are enough."""
        count = max(len(rows), min(self.batch_size, _FEWEST_ROWS))
        return rows[torch.arange(count, device=rows.device) % len(rows)]


def _wrong(logits: Tensor, y: Tensor) -> Tensor:
    """Bool ``[m]``: where logits ``[m, k]`` are finite and name another class."""
    return (logits.argmax(dim=1) != y) & torch.isfinite(logits).all(dim=1)


@dataclass(frozen=True)
class Indicator:
    """One way to notice that attacks failed.

    Attributes:
        raises: the kinds of its flags.
        probe: what it finds out of some samples of an outcome; it is told its name.
        flags: what follows from that, of all samples together.
    """

    raises: tuple[FlagKind, ...]
    probe: Callable[[Attacked, str], Iterable[Trial]]
    flags: Callable[[Sequence[Trial]], Iterable[Flag]]
