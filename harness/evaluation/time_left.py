"""How long an evaluation will go on, from the budgets of its attacks and the pace so far."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from harness import attacks
from harness.engine.types import AttackProgress
from harness.evaluation import reference
from harness.evaluation.plan import Plan

__all__ = ["Estimate", "TimeLeft", "in_words"]

_SOONEST = 5.0
"""Seconds before which nothing is said."""


class Estimate(NamedTuple):
    """What is known of the time of an evaluation while it runs, in seconds.

    Attributes:
        elapsed: since its first tick. left: that it still takes.
        later: that the evaluations after it take, if they are like it.
    """

    elapsed: float
    left: float
    later: float


class TimeLeft:
    """Seconds that an evaluation still takes.

    An iteration costs what it costs per surviving sample, so that the work of a step is its iterations times the
    samples that survive. All steps are taken to find as many survivors as there are now: the estimate is rather too
    long than too short.

    Args:
        costs: of every step, in their order: forward passes for one sample that survives all of it.
        later: how many evaluations like this one come after it.
    """

    def __init__(self, costs: Mapping[str, float], *, later: int = 0) -> None:
        self.costs = dict(costs)
        self.later = later
        self.begun: float | None = None
        self.work = 0.0
        self.last: AttackProgress | None = None

    @classmethod
    def of(cls, plan: Plan, *, later: int = 0) -> TimeLeft:
        """For a plan; nothing is known of the reference's steps."""
        if reference.runs(plan.suite):
            return cls({}, later=later)
        # of a model that is not this package's nobody knows yet how many it has
        classes = max(2, plan.target.dataset_record.classes)
        built = {
            step.name: (attacks.build(step.attack, plan.threat, classes, **step.parameters), step.parameters)
            for step in plan.suite.steps
        }
        costs = {
            name: attack.runs * attack.steps * attack.step_cost * int(parameters.get("eot", 1))
            for name, (attack, parameters) in built.items()
        }
        return cls(costs, later=later)

    def place(self, step: str) -> str:
        """Which step of how many, in words; empty where that is not known."""
        names = list(self.costs)
        return f"step {names.index(step) + 1} of {len(names)}, " if step in names and len(names) > 1 else ""

    def __call__(self, tick: AttackProgress) -> Estimate | None:
        """What can be said at a tick; None where that is nothing yet."""
        if tick.step not in self.costs:
            return None
        now = time.monotonic()
        cost, last = self.costs[tick.step], self.last
        if self.begun is None:
            # what a continued run has behind it took none of this run's time
            self.begun = now
        elif last is not None and last.step == tick.step:
            self.work += cost * max(0.0, tick.done - last.done) * (last.surviving + tick.surviving) / 2
        else:
            self.work += cost * tick.done * tick.surviving
        self.last = tick
        elapsed = now - self.begun
        if elapsed < _SOONEST or self.work <= 0:
            return None
        names = list(self.costs)
        remaining = cost * (1 - tick.done) + sum(self.costs[name] for name in names[names.index(tick.step) + 1 :])
        left = remaining * tick.surviving * elapsed / self.work
        return Estimate(elapsed, left, self.later * (elapsed + left))


def in_words(seconds: float) -> str:
    """A duration as people say it: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
