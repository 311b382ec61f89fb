"""APGD: projected gradient ascent that finds its own step size.

Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks" (arXiv 2003.01690); in sparse norms, Croce & Hein 2021, "Mind the Box: l1-APGD for Sparse
Adversarial Attacks on Image Classifiers" (arXiv 2103.01208). Where the authors' code departs from the
papers, this follows the code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.attacks._apgd_rules import Momentum, Rule, Sparse
from harness.attacks._arguments import at_least_one
from harness.attacks._base import Attack, Batch, Oracle, Proposal, State
from harness.attacks._objectives import Objective, targeted, untargeted
from harness.audit.flags import Flag
from harness.errors import InvalidInput
from harness.threat import ThreatModel
from harness.threat.norms import column

__all__ = ["apgd"]

_TARGETED = "dlr-targeted"

# with larger radii: multiples of eps, each for its share of the iterations, and the true eps for the rest
_LARGER = ((3.0, 0.3), (2.0, 0.3))


def apgd(
    threat: ThreatModel,
    classes: int,
    *,
    loss: str = "ce",
    steps: int = 100,
    restarts: int = 1,
    targets: int = 9,
    rho: float = 0.75,
    eot: int = 1,
    larger_radii: bool = False,
) -> Attack:
    """Auto-PGD with the cross-entropy, the DLR loss, or the targeted DLR loss.

    Every point of a run that lies in the threat model is checked, the start included. A run costs
    ``eot * steps`` backward passes and two forward passes more (four more with larger radii).

    Args:
        threat: the threat model.
        classes: how many classes the model knows.
        loss: what is raised: ce, dlr, margin, or dlr-targeted (against each target class in turn).
        steps: iterations of a run.
        restarts: runs from their own random starts; for each target class.
        targets: with dlr-targeted, how many classes, the likeliest first; at most ``classes - 1``.
        rho: share of the steps between two checkpoints that must have raised the loss, or the step is
            halved; without effect in sparse norms.
        eot: gradients to average for each step, for randomised models.
        larger_radii: begin with 3 and then 2 times eps for 30 % of the iterations each; points outside
            eps are never proposed.

    Raises:
        UnknownName: no such loss.
        InvalidInput: a parameter outside its range.
    """
    at_least_one("APGD", steps=steps, restarts=restarts, targets=targets, eot=eot)
    if not 0 < rho <= 1:
        raise InvalidInput(f"APGD's rho must be above 0 and at most 1, got {rho!r}")
    if larger_radii and steps <= len(_LARGER):
        raise InvalidInput(f"APGD with larger radii needs at least {len(_LARGER) + 1} steps, got {steps}")
    objective = targeted(classes, targets) if loss == _TARGETED else untargeted(loss, classes, besides=(_TARGETED,))
    rule = (Sparse if threat.geometry.sparse else Momentum)(threat.geometry, rho)
    return _Apgd(
        threat=threat,
        objective=objective,
        rule=rule,
        restarts=restarts,
        eot=eot,
        warm=larger_radii,
        schedule=_schedule(rule, threat.radius, steps, larger_radii),
        runs=restarts * max(objective.targets, 1),
        steps=steps,
        flags=objective.flags,
    )


@dataclass(frozen=True)
class _Iteration:
    """What depends on the iteration alone.

    Attributes:
        radius: of the ball of its phase.
        window: how many iterations the checkpoint after this one covers; 0 for no checkpoint.
        first: whether it is the first of its phase.
        last: whether it is the last of its phase.
    """

    radius: float
    window: int
    first: bool
    last: bool


def _schedule(rule: Rule, radius: float, steps: int, larger_radii: bool) -> tuple[_Iteration, ...]:
    phases = [(factor * radius, math.ceil(share * steps)) for factor, share in _LARGER] if larger_radii else []
    phases.append((radius, steps - sum(length for _, length in phases)))
    schedule: list[_Iteration] = []
    for phase_radius, length in phases:
        windows = rule.windows(length)
        schedule += (
            _Iteration(phase_radius, windows.get(i, 0), first=i == 0, last=i == length - 1) for i in range(length)
        )
    return tuple(schedule)


@dataclass(frozen=True)
class _Apgd(Attack):
    """The ascent. The state holds what `_apgd_rules` says and the ``target`` class, if there is one."""

    threat: ThreatModel
    objective: Objective
    rule: Rule
    restarts: int
    eot: int
    warm: bool
    schedule: tuple[_Iteration, ...]
    runs: int
    steps: int
    flags: tuple[Flag, ...]

    def start(self, batch: Batch, oracle: Oracle, run: int) -> tuple[State, Proposal]:
        state = self.objective.aim(batch, run // self.restarts)
        radius = self.schedule[0].radius
        point = self.threat.geometry.start(batch.x, radius, batch.draws, 0)
        if self.warm:
            # as the reference: a second projection takes back values that the first left one rounding away from x
            point = self.threat.geometry.project(point, batch.x, radius)
        return self._begin(batch, state, oracle, point, radius, self.warm)

    def step(self, batch: Batch, state: State, oracle: Oracle, i: int) -> tuple[State, Proposal]:
        if i == 1 and self._checks_first_step:
            self._learn(batch, state, oracle, self.schedule[0])
        now = self.schedule[i]
        point = self.rule.move(state, batch.x, now.radius, now.first)
        state["point"] = point
        if i == 0 and self._checks_first_step:
            return state, self._propose(batch, point, oracle.logits(point), now.radius)
        logits = self._learn(batch, state, oracle, now)
        if now.last and i + 1 < self.steps:
            radius = self.schedule[i + 1].radius
            point = self.threat.geometry.project(state["best"], batch.x, radius)
            return self._begin(batch, state, oracle, point, radius, warm=True)
        return state, self._propose(batch, point, logits, now.radius)

    @property
    def _checks_first_step(self) -> bool:
        """Whether the first step is checked by a forward pass before its gradient is computed.

        It is as long as the ball is wide and breaks most of the samples that ever break. These are spared a backward
        pass; the others pay one forward pass in a hundred.
        """
        return self.eot == 1 and not self.schedule[0].last

    def _learn(self, batch: Batch, state: State, oracle: Oracle, now: _Iteration) -> Tensor:
        """Evaluate the new point, adapt, and return its logits."""
        if now.last:
            # no step of this phase follows that would need the gradient
            logits = oracle.logits(state["point"])
            loss = self.objective.of(batch, state)(logits, slice(None))
            self._keep_best(state, loss)
            return logits
        logits, loss, state["grad"] = self._gradient(batch, state, oracle, state["point"])
        self._keep_best(state, loss)
        self._adapt(batch, state, now, loss)
        return logits

    def _begin(
        self, batch: Batch, state: State, oracle: Oracle, point: Tensor, radius: float, warm: bool
    ) -> tuple[State, Proposal]:
        """Begin a phase at a point."""
        logits, loss, grad = self._gradient(batch, state, oracle, point)
        state |= {"point": point, "grad": grad, "best": point.clone(), "best_grad": grad.clone(), "best_loss": loss}
        self.rule.begin(state, batch.x, radius, warm)
        return state, self._propose(batch, point, logits, radius)

    def _gradient(self, batch: Batch, state: State, oracle: Oracle, point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits and losses of the last of ``eot`` passes, and the mean of their gradients."""
        objective = self.objective.of(batch, state)
        logits, loss, grad = oracle.gradient(point, objective)
        for _ in range(self.eot - 1):
            logits, loss, another = oracle.gradient(point, objective)
            grad = grad + another
        return logits, loss, grad / self.eot if self.eot > 1 else grad

    def _keep_best(self, state: State, loss: Tensor) -> None:
        better = loss > state["best_loss"]
        rows = column(better, state["point"])
        torch.where(rows, state["point"], state["best"], out=state["best"])
        torch.where(rows, state["grad"], state["best_grad"], out=state["best_grad"])
        state["best_loss"] = torch.where(better, loss, state["best_loss"])

    def _adapt(self, batch: Batch, state: State, now: _Iteration, loss: Tensor) -> None:
        back = self.rule.learn(state, batch.x, now.radius, loss, now.window)
        if back is None:
            return
        rows = column(back, batch.x)
        # not in place: the point may be part of a proposal
        state["point"] = torch.where(rows, state["best"], state["point"])
        state["grad"] = torch.where(rows, state["best_grad"], state["grad"])

    def _propose(self, batch: Batch, point: Tensor, logits: Tensor, radius: float) -> Proposal:
        wrong = logits.argmax(dim=1) != batch.y
        if radius > self.threat.radius:
            wrong &= self.threat.distance(point, batch.x) <= self.threat.radius
        return Proposal(point, wrong)
