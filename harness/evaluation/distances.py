"""The smallest distance at which an attack that seeks the nearest adversarial example finds one, sample by sample.

An evaluation lets a sample go at the first adversarial example inside the ball. Here the ball is all of the image box,
no sample leaves, and every walk goes on to the end, as in Croce & Hein 2020 (arXiv 1907.02044).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness import attacks
from harness.attacks import Attack, Batch
from harness.backends.passes import ChunkOracle, Passes, Tally
from harness.engine.preflight import batch_size
from harness.engine.types import AttackProgress
from harness.evaluation import reference
from harness.evaluation.placement import place
from harness.evaluation.plan import Plan
from harness.suites import Step
from harness.threat import ThreatModel
from harness.threat.rng import Draws, sample_keys
from harness.util.images import cast
from harness.util.torch_state import pinned

__all__ = ["smallest_distances"]

Distances = np.ndarray[Any, np.dtype[np.float64]]


def smallest_distances(plan: Plan, *, progress: Callable[[AttackProgress], None] | None = None) -> Distances | None:
    """Run the steps of a plan's suite that seek the nearest adversarial example, whatever the radius of the plan.

    Returns:
        ``[n]`` smallest distances; 0 where a sample is wrong without attack, infinite where nothing was found. None
        where the suite has no such step.

    Raises:
        ModelError: the model fails.
    """
    if reference.runs(plan.suite):
        return None
    target, device = plan.target, place(plan).device
    with pinned(device, dtype=target.dtype):
        model, x, y = target.prepared(plan.threat, device), cast(target.x, target.dtype), target.y
        size = batch_size(plan.settings.batch_size, math.prod(x.shape[1:]), device)
        passes = Passes(model, None, size)
        parts = [slice(begin, begin + size) for begin in range(0, len(x), size)]
        logits = torch.cat([passes.logits(x[part].to(device), "on clean images").cpu() for part in parts])
        # farther than any image is from another one
        corner = float(plan.threat.geometry.size(torch.ones_like(x[:1]))[0])
        box = ThreatModel(plan.threat.norm, f"{1.01 * corner:.6g}")
        built = [
            (step, attacks.build(step.attack, box, logits.shape[1], **step.parameters)) for step in plan.suite.steps
        ]
        seeking = [(step, attack) for step, attack in built if attack.seeks_nearest]
        if not seeking:
            return None
        found = np.zeros(len(x))
        rows = (logits.argmax(dim=1) == y).nonzero().squeeze(1)
        found[rows.numpy()] = np.inf
        batches = torch.split(rows, size)
        for done, part in enumerate(batches):
            for step, attack in seeking:
                walk = _Walk(plan, step, attack, passes, size, device)
                found[part.numpy()] = np.minimum(
                    found[part.numpy()], walk.distances(x[part], y[part], logits[part], part)
                )
                if progress is not None:
                    progress(AttackProgress(f"{step.name}, distances", (done + 1) / len(batches), len(rows), len(rows)))
    return found


class _Walk:
    """All runs of one step, for some samples."""

    def __init__(self, plan: Plan, step: Step, attack: Attack, passes: Passes, size: int, device: torch.device) -> None:
        self.plan, self.step, self.attack, self.passes, self.size, self.device = (
            plan,
            step,
            attack,
            passes,
            size,
            device,
        )

    def distances(self, x: Tensor, y: Tensor, logits: Tensor, rows: Tensor) -> Distances:
        """``[m]`` smallest distances of adversarial examples that the model misclassifies when it sees them once more.

        Args:
            rows: positions of the samples among all of the plan.
        """
        clean, true = x.to(self.device), y.to(self.device)
        draws = Draws(sample_keys(x), self.plan.settings.seed, self.step.name)
        oracle = ChunkOracle(
            self.passes,
            rows,
            Tally.empty(len(self.plan.target.x)),
            self.step.name,
            self.plan.target.index,
            micro_batch=self.size,
            device=self.device,
        )
        nearest, points = torch.full((len(x),), torch.inf, device=self.device, dtype=clean.dtype), clean.clone()
        for run in range(self.attack.runs):
            batch = Batch(clean, true, logits.to(clean), draws.at(run))
            state, proposal = self.attack.start(batch, oracle, run)
            for i in range(self.attack.steps):
                state, proposal = self.attack.step(batch, state, oracle, i)
                distance = self.plan.threat.distance(proposal.points, clean)
                nearer = proposal.claimed & (distance < nearest)
                nearest[nearer], points[nearer] = distance[nearer], proposal.points[nearer]
        seen = self.passes.logits(points, f"judging {self.step.name}")
        nearest[seen.argmax(dim=1) == true] = torch.inf
        return nearest.cpu().double().numpy()
