"""Runs that have come back to where they were.

An attack whose next point follows from its point and the gradient there repeats itself as soon as both occur again,
and finds nothing new from then on (arXiv 2503.19347).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fingerprints", "occurs"]

# odd numbers whose bits look random: the golden ratio's and another of the same kind
_STEP, _MIX = -7046029254386353131, -4658895280553007687


def fingerprints(*parts: Tensor) -> Tensor:
    """A number for each row that depends on every bit of it: int64 ``[n]`` of floating-point ``[n, ...]``."""
    found = torch.zeros(len(parts[0]), dtype=torch.int64, device=parts[0].device)
    for part in parts:
        flat = part.detach().flatten(1).contiguous()
        bits = flat.view(torch.int64 if flat.element_size() == 8 else torch.int32).long()
        places = torch.arange(1, bits.shape[1] + 1, device=bits.device) * _STEP
        # multiplied, folded and multiplied again, so that no two simple changes cancel; overflow wraps around
        mixed = (bits + places) * _MIX
        mixed = (mixed ^ (mixed >> 31)) * _STEP
        found = (found ^ (found >> 29)) * _MIX + (mixed ^ (mixed >> 27)).sum(dim=1)
    return found


def occurs(seen: Tensor, marks: Tensor) -> Tensor:
    """Which of ``marks [n]`` are among those of their row ``seen [n, m]``: bool ``[n]``."""
    return (seen == marks[:, None]).any(dim=1)
