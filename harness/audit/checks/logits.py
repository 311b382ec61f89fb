"""Whether logits are of a size that losses in float32 can work with."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.audit.subject import Subject, spread

__all__ = ["logits"]

_HUGE, _SMALL, _SATURATED = 1e18, 1e-3, 80.0
_DIGITS = 3
"""The decimal digits of a difference that float32 must keep."""


def logits(subject: Subject) -> Iterator[Flag]:
    """Look at the logits of clean images and of random points inside the threat model."""
    nearby = torch.isfinite(subject.at_points).all(dim=1)
    if not bool(nearby.all()):
        yield kinds.NOT_FINITE_NEARBY(samples=int((~nearby).sum()), of=len(nearby))
    wide = subject.logits.double()
    largest, differ, middle = float(wide.abs().max()), float(spread(wide).median()), float(wide.mean(1).abs().median())
    if largest > _HUGE:
        yield kinds.LOGITS_HUGE(largest=float(f"{largest:.2g}"))
    if differ < _SMALL:
        yield kinds.LOGITS_SMALL(spread=float(f"{differ:.2g}"))
    if middle * torch.finfo(torch.float32).eps > differ * 10**-_DIGITS:
        figures = {"offset": float(f"{middle:.2g}"), "spread": float(f"{differ:.2g}")}
        yield kinds.LOGITS_OFFSET(**figures, digits=_DIGITS)
    top = wide.topk(2, dim=1).values
    saturated = int((top[:, 0] - top[:, 1] > _SATURATED).sum())
    if saturated * 10 >= len(wide):
        yield kinds.LOGITS_SATURATED(samples=saturated, of=len(wide))
