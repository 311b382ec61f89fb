"""PGD: projected gradient ascent with random starts.

Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks" (arXiv 1706.06083). A run that comes
back to an earlier point ends there (arXiv 2503.19347).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from harness.attacks._arguments import at_least_one
from harness.attacks._base import Attack, Batch, Oracle, Proposal, State
from harness.attacks._cycles import fingerprints, occurs
from harness.attacks._objectives import Objective, untargeted
from harness.audit.flags import Flag
from harness.audit.kinds import FEW_STEPS, STEPS_TOO_SHORT
from harness.errors import InvalidInput
from harness.threat import ThreatModel

__all__ = ["pgd"]

_FEW_STEPS = 5


def pgd(
    threat: ThreatModel,
    classes: int,
    *,
    steps: int = 100,
    restarts: int = 5,
    step_size: float | None = None,
    loss: str = "ce",
    random_start: bool = True,
) -> Attack:
    """Steepest steps of one size, each followed by a projection into the ball and the pixel box.

    Every point of a run is checked, the start included. A run costs ``steps + 1`` forward and
    ``steps`` backward passes. In L1 a step fills the pixels with the largest gradients one after another
    (`harness.threat.norms.Norm.climb`).

    A sample's run ends early where its point and the gradient there are those of an earlier iteration, bit for bit:
    what follows would be what followed then.

    Args:
        threat: the threat model.
        classes: how many classes the model knows.
        steps: iterations of a run.
        restarts: runs, each from its own start.
        step_size: length of a step in the threat's norm, in pixel units ([0, 1]); ``2.5 * eps / steps``
            if not given.
        loss: what is raised: ce, margin or dlr.
        random_start: start uniformly in the ball; otherwise at the clean image.

    Raises:
        UnknownName: no such loss.
        InvalidInput: a parameter outside its range.
    """
    at_least_one("PGD", steps=steps, restarts=restarts)
    if step_size is None:
        # with a radius of 0 no step is taken, and any length does
        step_size = 2.5 * threat.radius / steps or 1.0
    if not (step_size > 0 and math.isfinite(step_size)):
        raise InvalidInput(f"PGD's step_size must be positive and finite, got {step_size!r}")
    if restarts > 1 and not random_start:
        raise InvalidInput(f"PGD without random starts repeats itself: set restarts to 1, got {restarts}")
    objective = untargeted(loss, classes)
    flags = [*objective.flags]
    if steps < _FEW_STEPS:
        flags.append(FEW_STEPS(steps=steps))
    if steps * step_size < threat.radius:
        flags.append(STEPS_TOO_SHORT(steps=steps, step_size=step_size, radius=threat.radius))
    return _Pgd(threat, objective, step_size, random_start, restarts, steps, tuple(flags))


@dataclass(frozen=True)
class _Pgd(Attack):
    """State: the current ``point``, the loss's ``grad`` there, and fingerprints ``seen`` of all pairs so far."""

    threat: ThreatModel
    objective: Objective
    step_size: float
    random_start: bool
    runs: int
    steps: int
    flags: tuple[Flag, ...]

    def start(self, batch: Batch, oracle: Oracle, run: int) -> tuple[State, Proposal]:
        point = batch.x
        if self.random_start:
            point = self.threat.geometry.inside(batch.x, self.threat.radius, batch.draws, 0)
        logits, _, grad = oracle.gradient(point, self.objective.of(batch, {}))
        seen = torch.zeros(len(batch), self.steps, dtype=torch.int64, device=point.device)
        seen[:, 0] = fingerprints(point, grad)
        return {"point": point, "grad": grad, "seen": seen}, Proposal(point, logits.argmax(dim=1) != batch.y)

    def step(self, batch: Batch, state: State, oracle: Oracle, i: int) -> tuple[State, Proposal]:
        climbed = self.threat.geometry.climb(state["point"], state["grad"], self.step_size)
        point = self.threat.project(climbed, batch.x)
        over = None
        if i + 1 < self.steps:
            logits, _, state["grad"] = oracle.gradient(point, self.objective.of(batch, state))
            marks = fingerprints(point, state["grad"])
            over = occurs(state["seen"][:, : i + 1], marks)
            state["seen"][:, i + 1] = marks
        else:
            # nothing follows that would need the gradient
            logits = oracle.logits(point)
        state["point"] = point
        return state, Proposal(point, logits.argmax(dim=1) != batch.y, over)
