"""Whether a larger ball, or one step instead of ten, serves the same attack better: both are signs of bad gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from harness.audit import kinds
from harness.audit.attacked import Attacked
from harness.audit.flags import Flag

__all__ = ["larger_eps"]

_CHANCE = 1
"""So many samples may differ by chance."""


def larger_eps(attacked: Attacked) -> Iterator[Flag]:
    """Attack samples that are classified correctly with a short PGD in the ball and in one twice as large, and once."""
    if not bool(attacked.robust.any()):
        return
    x, y = attacked.some(attacked.correct)
    threat = attacked.threat
    ten = int(attacked.climbed(x, y, threat).sum())
    one = int(attacked.climbed(x, y, threat, steps=1).sum())
    double = int(attacked.climbed(x, y, replace(threat, eps=repr(2 * threat.radius))).sum())
    if one > ten + _CHANCE:
        yield kinds.ONE_STEP_STRONGER(one=one, ten=ten, of=len(x))
    if ten > double + _CHANCE:
        yield kinds.LARGER_EPS_WEAKER(ten=ten, double=double, of=len(x))
