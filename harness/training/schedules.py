"""Learning rate schedules: from how far a phase has come, in [0, 1), to a factor of the peak rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from harness.util.choices import ScheduleName

__all__ = ["SCHEDULES"]


def _one_cycle(done: float) -> float:
    """Up linearly over the first 30 %, down to nothing by a half cosine (Smith 2018, arXiv 1803.09820)."""
    rise, lowest = 0.3, 0.04
    if done < rise:
        return lowest + (1 - lowest) * done / rise
    return _cosine((done - rise) / (1 - rise))


def _step(done: float) -> float:
    """A tenth after a half, a hundredth after three quarters: epochs 80 and 120 of 160."""
    return 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01


def _cosine(done: float) -> float:
    """Down to nothing by a half cosine (Loshchilov & Hutter 2017, arXiv 1608.03983)."""
    return 0.5 * (1 + math.cos(math.pi * done))


def _constant(done: float) -> float:
    return 1.0


SCHEDULES: Mapping[ScheduleName, Callable[[float], float]] = MappingProxyType(
    {"one-cycle": _one_cycle, "step": _step, "cosine": _cosine, "constant": _constant}
)
