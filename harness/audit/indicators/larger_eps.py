"""Whether a larger ball, or one step instead of ten, serves the same attack better: both are signs of bad gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.audit import kinds
from harness.audit.attacked import Attacked, Indicator
from harness.audit.flags import Flag
from harness.audit.trials import Trial, count

__all__ = ["larger_eps"]

_CHANCE = 1
"""So many samples may differ by chance."""


def _probe(attacked: Attacked, name: str) -> Iterator[Trial]:
    """Attack samples that are classified correctly with a short PGD in the ball and in one twice as large, and once."""
    if not attacked.differentiable:
        return
    yield from attacked.trials(name, "survivors", attacked.rows("survivors"), {})
    rows, threat = attacked.rows("correct"), attacked.threat
    x, y = attacked.samples(rows)
    if len(x):
        outcomes = {
            "ten": attacked.climbed(x, y, threat),
            "one": attacked.climbed(x, y, threat, steps=1),
            "double": attacked.climbed(x, y, replace(threat, eps=repr(2 * threat.radius))),
        }
        yield from attacked.trials(name, "correct", rows, outcomes)


def _flags(trials: Sequence[Trial]) -> Iterator[Flag]:
    correct = [trial for trial in trials if trial.among == "correct"]
    if len(correct) == len(trials):  # nothing survived, so that no attack was too weak
        return
    ten, one, double = (count(correct, outcome) for outcome in ("ten", "one", "double"))
    if one > ten + _CHANCE:
        yield kinds.ONE_STEP_STRONGER(one=one, ten=ten, of=len(correct))
    if ten > double + _CHANCE:
        yield kinds.LARGER_EPS_WEAKER(ten=ten, double=double, of=len(correct))


larger_eps = Indicator((kinds.ONE_STEP_STRONGER, kinds.LARGER_EPS_WEAKER), _probe, _flags)
