"""The guard in front of fast passes: they must say what the plain model says, or they are not used.

Fast passes decide which points an attack visits, so a wrong gradient lets broken samples pass as robust without any
error. `compare` therefore looks at every row of a batch of the size that the attack will use, at a smaller last batch
and at a single row, with and without gradients. Callers give it clean images, points inside the threat model, and
after an attack the points where it ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.backends.passes import Passes, mended
from harness.threat import ThreatModel
from harness.threat.rng import Draws

__all__ = ["FEWEST", "TOLERANCES", "Comparison", "Guard", "Tolerance", "chosen", "compare"]

FEWEST = 24
"""Samples that are compared at least, where there are so many."""

Counts = np.ndarray[tuple[int], np.dtype[np.int64]]
Figures = np.ndarray[tuple[int], np.dtype[np.float64]]

_CALL = "while fast passes were compared with the plain model"
# how many points beside its own a sample may agree at
_BESIDE = 2


@dataclass(frozen=True)
class Tolerance:
    """What reduced precision may change for any one sample.

    Attributes:
        logits: largest difference of a logit, in units of the sample's largest minus its smallest logit.
        cosine: smallest cosine between the two input gradients.
        size: largest relative difference between the lengths of the two input gradients.
    """

    logits: float
    cosine: float
    size: float


TOLERANCES = {
    "fp32": Tolerance(logits=1e-4, cosine=0.999, size=0.05),
    "tf32": Tolerance(logits=1e-2, cosine=0.99, size=0.1),
    "bf16": Tolerance(logits=0.1, cosine=0.97, size=0.25),
}


@dataclass(frozen=True)
class Comparison:
    """How far fast passes are from the plain model, for each of ``m`` samples the worst of its rows.

    Attributes:
        logits, cosine, size: float64 ``[m]`` each, as in `Tolerance`; NaN where a value was not finite.
        tolerance: what the precision allows.
        forward, backward: int64 ``[m]`` passes spent on each sample, those of the plain model included.
    """

    logits: Figures
    cosine: Figures
    size: Figures
    tolerance: Tolerance
    forward: Counts
    backward: Counts

    @property
    def off(self) -> Figures:
        """How far each sample is off, in units of what is allowed."""
        allowed = self.tolerance
        off = np.stack(
            [self.logits / allowed.logits, (1 - self.cosine) / (1 - allowed.cosine), self.size / allowed.size]
        )
        found: Figures = np.nan_to_num(off.max(axis=0), nan=np.inf)
        return found

    @property
    def agreed(self) -> bool:
        return bool((self.off <= 1).all())

    @property
    def worst(self) -> int:
        """Position of the sample that is furthest off."""
        return int(self.off.argmax())

    @property
    def at_kinks(self) -> bool:
        """Whether only gradients disagree, and only those of few samples, as they do where a rectifier is near zero."""
        logits = bool((self.logits <= self.tolerance.logits).all()) and bool(np.isfinite(self.cosine + self.size).all())
        return logits and 4 * int((self.off > 1).sum()) <= max(4, len(self.off))

    def or_else(self, other: Comparison) -> Comparison:
        """Of each sample the point where it is off least, and the passes spent on both."""
        first = self.off <= other.off
        return Comparison(
            logits=np.where(first, self.logits, other.logits),
            cosine=np.where(first, self.cosine, other.cosine),
            size=np.where(first, self.size, other.size),
            tolerance=self.tolerance,
            forward=self.forward + other.forward,
            backward=self.backward + other.backward,
        )

    def __str__(self) -> str:
        return f"logits within {self.logits.max():.1e}, gradient cosine at least {self.cosine.min():.6f}"


def chosen(keys: np.ndarray[Any, np.dtype[np.uint64]], count: int = FEWEST) -> Counts:
    """Positions of the samples to compare, ``count`` at most: a choice by their keys, whatever their order."""
    return np.sort(np.argsort(keys, kind="stable")[:count]).astype(np.int64)


@dataclass(frozen=True)
class Guard:
    """Compares fast passes with the plain model's before an attack and after it.

    Args:
        plain: passes of the model as it was loaded.
        threat: the points that attacks may visit.
        size: how many rows an attack sends through the model together.
    """

    plain: Passes
    threat: ThreatModel
    size: int

    def before(self, fast: Passes, x: Tensor, draws: Draws) -> list[Comparison]:
        """Compare at clean images ``x [m, ...]`` and, if they agree there, at random points inside the threat model."""
        clean = self.after(fast, x, x, draws)
        return [clean, self.after(fast, self.inside(x, draws, 0), x, draws)] if clean.agreed else [clean]

    def after(self, fast: Passes, points: Tensor, x: Tensor, draws: Draws) -> Comparison:
        """Compare at ``points [m, ...]`` inside the threat model around ``x [m, ...]``.

        Rounding decides the gradient where a rectifier's input is nearly zero, or two values of a maximum are nearly
        equal, so that a sample may agree at a point beside its own instead.
        """
        compared = compare(self.plain, fast, points, size=self.size)
        for attempt in range(1, 1 + _BESIDE):
            if compared.agreed or not compared.at_kinks:
                break
            # between two points of a convex set
            beside = points.lerp(self.inside(x, draws, 2 * attempt), 0.01)
            compared = compared.or_else(compare(self.plain, fast, beside, size=self.size))
        return compared

    def inside(self, x: Tensor, draws: Draws, counter: int) -> Tensor:
        """A random point inside the threat model for each of ``x [m, ...]``."""
        return self.threat.geometry.inside(x, self.threat.radius, draws, counter).to(x)


def compare(plain: Passes, fast: Passes, points: Tensor, *, size: int) -> Comparison:
    """Compare fast passes with the plain model's at some points.

    Args:
        points: ``[m, ...]``, one per sample, on the device. They are repeated to fill batches of ``size`` rows.
        size: how many rows the attack sends through the model together.

    Raises:
        ModelError, NoGradient: the plain model's own failures at these points, and those of the fast passes.
    """
    m = len(points)
    logits, _, gradient = plain.gradient(points, _loss, _CALL)
    expected = _Answers(logits, mended(gradient[:, None])[0])
    forward, backward = np.ones(m, np.int64), np.ones(m, np.int64)
    measured: list[_Differences] = []

    def measure(block: Tensor, ask: Callable[[Tensor], _Answers], losses: int) -> None:
        rows = block.to(points.device)
        answers = ask(points.index_select(0, rows))
        measured.append(expected.rows(rows).differences(answers, block))
        np.add.at(forward, block.numpy(), 1)
        np.add.at(backward, block.numpy(), losses)

    def of_one_loss(x: Tensor) -> _Answers:
        logits, _, gradient = fast.gradient(x, _loss, _CALL)
        return _Answers(logits, mended(gradient[:, None])[0])

    def of_two_losses(x: Tensor) -> _Answers:
        logits, _, gradients = fast.gradients(x, _twice, _CALL)
        return _Answers(logits, mended(gradients)[0])

    def without_gradient(x: Tensor) -> _Answers:
        return _Answers(fast.logits(x, _CALL), None)

    for begin in range(0, m, size):
        block = torch.arange(begin, begin + size) % m
        measure(block, of_one_loss, 1)
        measure(block, without_gradient, 0)
    # batches become smaller as samples leave
    for count in sorted({size // 2 + 1, 1} - {size}):
        block = torch.arange(count) % m
        measure(block, of_two_losses, 2)
        measure(block, without_gradient, 0)
    return _worst_rows(measured, TOLERANCES[fast.precision], forward, backward)


@dataclass(frozen=True)
class _Differences:
    """Of each row: its sample, and how far it is off in each respect."""

    samples: Tensor
    logits: Tensor
    cosine: Tensor
    size: Tensor


@dataclass(frozen=True)
class _Answers:
    """Logits ``[r, k]``, and gradients ``[r, j, ...]`` of `_loss` and of what follows it in `_twice`, or None."""

    logits: Tensor
    gradients: Tensor | None

    def rows(self, rows: Tensor) -> _Answers:
        gradients = None if self.gradients is None else self.gradients.index_select(0, rows)
        return _Answers(self.logits.index_select(0, rows), gradients)

    def differences(self, other: _Answers, samples: Tensor) -> _Differences:
        ours, theirs = self.logits.double(), other.logits.double()
        spread = ours.amax(1) - ours.amin(1)
        # logits that are all alike are compared by their size
        scale = torch.maximum(spread, 1e-3 * ours.abs().amax(1)).clamp(min=torch.finfo(torch.float32).tiny)
        logits = (ours - theirs).abs().amax(1) / scale
        cosine, size = torch.ones_like(logits), torch.zeros_like(logits)
        if self.gradients is not None and other.gradients is not None:
            theirs = other.gradients.flatten(2).double()
            ours = self.gradients.flatten(2).double()
            ours = torch.cat([ours, -ours], dim=1)[:, : theirs.shape[1]]
            # scaled before they are squared, as squares of tiny numbers are zero
            largest = torch.maximum(ours.abs().amax(2), theirs.abs().amax(2))[:, :, None]
            zero = (largest == 0).squeeze(2)
            ours, theirs = (part / torch.where(largest == 0, 1.0, largest) for part in (ours, theirs))
            length = ours.norm(dim=2)
            # zeros agree with zeros and with nothing else
            cosine = torch.where(zero, 1.0, F.cosine_similarity(ours, theirs, dim=2)).amin(1)
            ratio = (length - theirs.norm(dim=2)).abs() / length.clamp(min=1e-12)
            size = torch.where(zero, 0.0, ratio).amax(1)
        return _Differences(samples, logits.cpu(), cosine.cpu(), size.cpu())


def _loss(logits: Tensor, part: slice) -> Tensor:
    """A loss whose gradient reaches every logit: ``[m, k] -> [m]``."""
    classes = torch.arange(logits.shape[1], device=logits.device)
    weights = (1 - 2 * (classes % 2)) * (1 + classes / len(classes)) / len(classes)
    return logits.logsumexp(dim=1) + logits @ weights.to(logits)


def _twice(logits: Tensor, part: slice) -> Tensor:
    """A second loss whose gradient is known from the first's: ``[m, k] -> [m, 2]``."""
    loss = _loss(logits, part)
    return torch.stack([loss, -loss], dim=1)


def _worst_rows(measured: list[_Differences], tolerance: Tolerance, forward: Counts, backward: Counts) -> Comparison:
    samples = np.concatenate([part.samples.numpy() for part in measured])

    def worst(values: Tensor, function: np.ufunc, start: float) -> Figures:
        found = np.full(len(forward), start)
        with np.errstate(invalid="ignore"):
            function.at(found, samples, values.numpy())  # passes NaN on
        return found

    return Comparison(
        logits=worst(torch.cat([part.logits for part in measured]), np.maximum, 0.0),
        cosine=worst(torch.cat([part.cosine for part in measured]), np.minimum, 1.0),
        size=worst(torch.cat([part.size for part in measured]), np.maximum, 0.0),
        tolerance=tolerance,
        forward=forward,
        backward=backward,
    )
