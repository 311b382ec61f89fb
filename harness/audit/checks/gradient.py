"""Whether there are gradients, and whether they are numbers, not zero, and the same each time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.audit.subject import FEW, Slope, Subject, apart, spread

__all__ = ["gradient"]

_SAME = 0.99
_REPEATED = 4
_VANISHES = 1e-4
_CHANGE = 8 / 255


def gradient(subject: Subject) -> Iterator[Flag]:
    """Look at the gradients of the margin at clean images and at random points inside the threat model."""
    clean = subject.slope_at(subject.x[:FEW])
    slopes = (clean, subject.nearby_slope)
    gradients = [slope.gradient.flatten(1) for slope in slopes if slope.gradient is not None]
    if len(gradients) < len(slopes):
        yield kinds.NO_GRADIENT()
        return
    m = len(clean.points)
    bad = torch.stack([~torch.isfinite(part).all(dim=1) for part in gradients]).any(dim=0)
    if bool(bad.any()):
        yield kinds.NAN_GRADIENT(samples=int(bad.sum()), of=m)
    finite = [part.nan_to_num(0.0, 0.0, 0.0) for part in gradients]
    flat = torch.stack([(part == 0).all(dim=1) for part in finite]).any(dim=0)
    if bool(flat.any()):
        yield kinds.ZERO_GRADIENT(samples=int(flat.sum()), of=m)
    yield from _vanishing(subject, slopes, finite)
    yield from _random(subject, clean)


def _vanishing(subject: Subject, slopes: tuple[Slope, Slope], gradients: list[Tensor]) -> Iterator[Flag]:
    change = torch.cat([_CHANGE * part.double().abs().sum(dim=1) for part in gradients])
    scale = torch.cat([spread(slope.logits) for slope in slopes])
    share = (change / scale.clamp(min=torch.finfo(torch.float64).tiny))[change > 0]
    # a model that says nearly the same of all images has small gradients by rights
    varies = min(1.0, float(apart(subject.logits, subject.logits.roll(1, 0)).median()))
    if len(share) and float(share.median()) < _VANISHES * varies:
        yield kinds.GRADIENT_VANISHING(share=float(f"{float(share.median()):.2g}"), of=len(slopes[0].points))


def _random(subject: Subject, first: Slope) -> Iterator[Flag]:
    if subject.expects_random or first.gradient is None:
        return
    again = subject.slope_at(first.points[:_REPEATED]).gradient
    if again is None:
        return
    parts = (first.gradient[:_REPEATED], again)
    one, two = (part.flatten(1).double().nan_to_num(0.0, 0.0, 0.0) for part in parts)
    largest = one.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    cosine = F.cosine_similarity(one / largest, two / largest, dim=1)[(one != 0).any(dim=1)]
    if len(cosine) and float(cosine.min()) < _SAME:
        yield kinds.GRADIENT_RANDOM(cosine=round(float(cosine.min()), 4))
