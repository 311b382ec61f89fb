"""Whether the output changes as the gradient says, without gradients being recorded.

A gradient may be reversed, scrambled, detached from part of the model, or right only for steps that no attack takes
(shattered: Athalye et al. 2018, arXiv 1802.00420).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.audit.subject import Slope, Subject, apart

__all__ = ["gradient_direction"]

_SHARES = (1 / 512, 1 / 64, 1 / 4)
"""The lengths of the steps, as shares of the radius."""

_SHORTEST = 1e-5
"""The shortest step whose effect float32 can still tell from rounding."""

_LEAST, _MOST = 0.2, 5.0
"""What a model that is nearly linear over some of these steps may change by, in units of what its gradient says."""

_SHATTERED = 0.03
_SAME = 1e-3


def gradient_direction(subject: Subject) -> Iterator[Flag]:
    """Take steps of three lengths along the sign of the gradient and compare the margin with what it says."""
    slope = subject.slope
    plain = subject.ask(slope.points)
    if bool((apart(plain, slope.logits) > _SAME).any()):
        if not subject.expects_random and not bool((apart(plain, subject.ask(slope.points)) > _SAME).any()):
            yield kinds.GRAD_MODE_DEPENDENT()
        return
    if slope.gradient is None:
        return
    gradient = slope.gradient.nan_to_num(0.0, 0.0, 0.0)
    steep = (gradient.flatten(1) != 0).any(dim=1)
    if not bool(steep.any()):
        return
    ratios = torch.stack([_ratio(subject, slope, gradient, plain, share)[steep] for share in _SHARES])
    low, high = float(ratios.amax(0).median()), float(ratios.amin(0).median())
    far = float(ratios[-1].median())
    if low < _LEAST:
        yield kinds.GRADIENT_MISLEADS(found=float(f"{low:.2g}"), of=int(steep.sum()))
    elif high > _MOST:
        yield kinds.GRADIENT_MISLEADS(found=float(f"{high:.2g}"), of=int(steep.sum()))
    elif far < _SHATTERED:
        yield kinds.GRADIENT_SHATTERED(found=float(f"{far:.2g}"), of=int(steep.sum()))


def _ratio(subject: Subject, slope: Slope, gradient: Tensor, plain: Tensor, share: float) -> Tensor:
    """What the margin changes by, in units of what the gradient says: float64 ``[m]``."""
    step = max(share * subject.reach, _SHORTEST)
    # rounding changes the step that is taken, where a pixel is much larger than it
    moved = slope.points + step * gradient.sign()
    taken = (moved.double() - slope.points.double()).flatten(1)
    said = (gradient.double().flatten(1) * taken).sum(dim=1)
    changed = slope.margin(subject.ask(moved)) - slope.margin(plain)
    return changed / said.clamp(min=torch.finfo(torch.float64).tiny)
