"""FAB: steps to the nearest decision boundary, for adversarial points at small distances.

Croce & Hein 2020, "Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack"
(arXiv 1907.02044).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from harness.attacks._arguments import at_least_one
from harness.attacks._base import Attack, Batch, Loss, Oracle, Proposal, State
from harness.attacks._fab_guess import first_guess, guess, learn
from harness.audit.flags import Flag
from harness.audit.kinds import FEWER_TARGETS
from harness.errors import InvalidInput
from harness.threat import ThreatModel
from harness.threat.norms import Norm, column

__all__ = ["fab"]

# distances below this are regarded as this when points are mixed
_NEAR = 1e-8
_TINY = 1e-12


def fab(
    threat: ThreatModel,
    classes: int,
    *,
    targeted: bool = False,
    targets: int = 9,
    steps: int = 100,
    restarts: int = 1,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
) -> Attack:
    """FAB against the nearest class, or against each of several likely classes in turn.

    The first restart begins at the clean image, later ones at a random point half of eps away. A point
    is claimed when it is misclassified and within eps; until then the walk goes on to nearer points.

    Args:
        threat: the threat model.
        classes: how many classes the model knows.
        targeted: walk to the boundary with one given class; costs one backward pass a step where the
            untargeted walk costs ``classes - 1``.
        targets: how many classes, the most likely first; at most ``classes - 1``.
        steps: iterations of a run.
        restarts: runs, for each target.
        alpha_max: largest share of the step that starts from the clean image.
        eta: how far beyond the boundary to step; 1 is on it.
        beta: share of its distance from the clean image that an adversarial point keeps.

    Raises:
        InvalidInput: a parameter outside its range, or a sparse norm without a `hyperplane` of its own.
    """
    if classes < 2:
        raise InvalidInput(f"FAB needs a model of at least 2 classes, got {classes}")
    at_least_one("FAB", targets=targets, steps=steps, restarts=restarts)
    if not (0 <= alpha_max <= 1 and 0 <= beta <= 1 and eta >= 1):
        raise InvalidInput(
            f"FAB needs alpha_max and beta in [0, 1] and eta of at least 1, got {alpha_max}, {beta} and {eta}"
        )
    geometry = threat.geometry
    if geometry.sparse and type(geometry).hyperplane is Norm.hyperplane:
        raise InvalidInput(f"FAB cannot attack in the norm {geometry.name}: it is sparse and defines no hyperplane()")
    aims = min(targets, classes - 1) if targeted else 1
    flags: tuple[Flag, ...] = ()
    if targeted and aims < targets:
        flags = (FEWER_TARGETS(asked=targets, used=aims, classes=classes),)
    return _Fab(
        threat=threat,
        targeted=targeted,
        restarts=restarts,
        alpha_max=alpha_max,
        eta=eta,
        beta=beta,
        steps=steps,
        runs=aims * restarts,
        flags=flags,
    )


@dataclass(frozen=True)
class _Fab(Attack):
    """The walk.

    The state of a sample is the point ``x`` and, where it is ``fresh``, what is known of the model there:
    ``gap``, the target's logit minus the true one, and ``slope``, its gradient.

    A step ends with a check of its new point. Where the boundary was not crossed, the next step begins at that point,
    so the check is made with a backward pass and the next step needs no pass. Where it was crossed, the next step
    begins elsewhere, and the gradient would be wasted. Hence samples that are predicted to cross are checked by a
    forward pass alone: two groups a step.
    """

    seeks_nearest: ClassVar[bool] = True
    step_cost: ClassVar[int] = 4  # two forward passes besides the backward one

    threat: ThreatModel
    targeted: bool
    restarts: int
    alpha_max: float
    eta: float
    beta: float
    steps: int
    runs: int
    flags: tuple[Flag, ...]

    def start(self, batch: Batch, oracle: Oracle, run: int) -> tuple[State, Proposal]:
        aim, restart = divmod(run, self.restarts)
        x = batch.x.clone()
        if restart > 0:
            geometry = self.threat.geometry
            noise = geometry.normalize(geometry.noise(x, batch.draws, 0))
            x = (x + 0.5 * self.threat.radius * noise).clamp_(0, 1)
        nobody = torch.zeros_like(batch.y, dtype=torch.bool)
        others = batch.logits.scatter(1, batch.y[:, None], -torch.inf).sort(dim=1).indices
        state = {
            "x": x,
            "gap": x.new_zeros(len(x)),
            "slope": torch.zeros_like(x),
            "target": others[:, -1 - aim],
            "fresh": nobody,
            **first_guess(x),
        }
        return state, Proposal(x, nobody)

    def step(self, batch: Batch, state: State, oracle: Oracle, i: int) -> tuple[State, Proposal]:
        geometry = self.threat.geometry
        x = state["x"]
        rows = _positions(~state["fresh"])
        if len(rows):
            self._linearise(batch, state, oracle, x, rows)
        x = self._move(batch.x, x, state["gap"], state["slope"])

        # nothing follows the last step that could use a gradient
        seeing = ~guess(state) & (i < self.steps - 1)
        prediction = torch.empty_like(batch.y)
        rows = _positions(~seeing)
        if len(rows):
            prediction[rows] = oracle.logits(x.index_select(0, rows), rows).argmax(dim=1)
        rows = _positions(seeing)
        if len(rows):
            prediction[rows] = self._linearise(batch, state, oracle, x, rows)

        crossed = prediction != batch.y
        claimed = torch.zeros_like(crossed)
        state["x"], state["fresh"] = x, seeing & ~crossed
        learn(state, crossed)
        rows = _positions(crossed)
        if len(rows):
            clean = batch.x.index_select(0, rows)
            delta = x.index_select(0, rows).sub_(clean)
            claimed[rows] = geometry.size(delta) <= self.threat.radius
            state["x"] = x.index_copy(0, rows, clean.add_(delta, alpha=self.beta))
        return state, Proposal(x, claimed)

    def _move(self, clean: Tensor, x: Tensor, gap: Tensor, slope: Tensor) -> Tensor:
        """A step across the boundary as it is linearised at ``x``, biased towards the clean image."""
        geometry = self.threat.geometry
        b = geometry.flat(slope * x).sum(dim=1) - gap
        step, clean_step = geometry.hyperplane(x, slope, b), geometry.hyperplane(clean, slope, b)
        length, clean_length = (geometry.size(each).clamp_(min=_NEAR) for each in (step, clean_step))
        share = column((length / (length + clean_length)).clamp_(max=self.alpha_max), x)
        there = torch.add(x, step, alpha=self.eta, out=step).mul_(1 - share)
        clean_there = torch.add(clean, clean_step, alpha=self.eta, out=clean_step).mul_(share)
        return there.add_(clean_there).clamp_(0, 1)

    def _linearise(self, batch: Batch, state: State, oracle: Oracle, x: Tensor, rows: Tensor) -> Tensor:
        """Learn the boundary at some of the points; returns the predicted classes ``[m]``."""
        linearise, size = self._towards_target, len(rows)
        if not self.targeted:
            # a gradient per class is in memory, so not those of all rows at once
            linearise, size = self._towards_nearest, oracle.micro_batch
        predicted = []
        for some in torch.split(rows, -(-len(rows) // -(-len(rows) // size))):
            logits, gap, slope = linearise(batch, state, oracle, x.index_select(0, some), some)
            state["gap"].index_copy_(0, some, gap)
            state["slope"].index_copy_(0, some, slope)
            predicted.append(logits.argmax(dim=1))
        return predicted[0] if len(predicted) == 1 else torch.cat(predicted)

    def _towards_target(
        self, batch: Batch, state: State, oracle: Oracle, x: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, gap ``[m]`` and slope ``[m, ...]`` of the boundary with the target class."""
        lead = _lead(batch.y.index_select(0, rows), state["target"].index_select(0, rows)[:, None])
        return oracle.gradient(x, lambda logits, part: lead(logits, part).squeeze(1), rows)

    def _towards_nearest(
        self, batch: Batch, state: State, oracle: Oracle, x: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same for the class whose boundary seems nearest."""
        true = batch.y[rows]
        others = torch.arange(batch.logits.shape[1] - 1, device=x.device).expand(len(x), -1)
        others = others + (others >= true[:, None]).to(others.dtype)
        logits, gaps, slopes = oracle.gradients(x, _lead(true, others), rows)
        steepness = self.threat.geometry.dual_size(slopes.flatten(0, 1)).view_as(gaps)
        nearest = (gaps.abs() / (steepness + _TINY)).argmin(dim=1, keepdim=True)
        each = torch.arange(len(x), device=x.device)
        return logits, gaps.gather(1, nearest).squeeze(1), slopes[each, nearest.squeeze(1)]


def _lead(true: Tensor, others: Tensor) -> Loss:
    """Logits of the classes ``others [m, j]`` minus those of the true ones ``[m]``: from logits to ``[m, j]``."""
    return lambda logits, part: logits.gather(1, others[part]) - logits.gather(1, true[part, None])


def _positions(mask: Tensor) -> Tensor:
    return mask.nonzero().squeeze(1)
