"""Whether a small change of the images changes the outputs at all."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.audit.subject import Subject

__all__ = ["quantised"]

_CHANGE = 2e-5
"""About 1/200 of a level of 8 bits."""

_PIXELS = 20
"""So few that hardly one of them crosses from one level to the next."""


def quantised(subject: Subject) -> Iterator[Flag]:
    """Change the pixels that matter most by very little at random points, and compare the outputs bit by bit."""
    points, gradient = subject.nearby_slope.points, subject.nearby_slope.gradient
    slope = torch.zeros_like(points) if gradient is None else gradient.nan_to_num(0.0, 0.0, 0.0)
    flat = slope.flatten(1)
    matter = flat.abs().topk(min(_PIXELS, flat.shape[1]), dim=1).indices
    # where there is no gradient, upwards
    step = torch.zeros_like(flat).scatter_(1, matter, _CHANGE) * torch.where(flat < 0, -1.0, 1.0)
    same = (subject.ask(points) == subject.ask(points + step.view_as(points))).all(dim=1)
    samples = int(same.sum())
    if 2 * samples > len(points):
        yield kinds.ANSWERS_QUANTISED(change=_CHANGE, samples=samples, of=len(points))
