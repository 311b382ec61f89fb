"""An attack that notes what it does: which iteration of which run on which sample, in which job and on which node.

The folder of its notes is ``$NOTES``; ``$SLOW`` seconds pass in each iteration. Neither is part of an evaluation's
identity.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.attacks import Attack, Batch, Oracle, Proposal, State, build
from harness.threat import ThreatModel

__all__ = ["logged_attack"]


_JOB = ("SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURMD_NODENAME")


def logged_attack(threat: ThreatModel, classes: int, *, steps: int = 40, restarts: int = 2) -> Attack:
    """PGD, with notes."""
    return _Logged(build("pgd", threat, classes, steps=steps, restarts=restarts), restarts, steps)


@dataclass(frozen=True)
class _Logged(Attack):
    inner: Attack
    runs: int
    steps: int

    def start(self, batch: Batch, oracle: Oracle, run: int) -> tuple[State, Proposal]:
        return self.inner.start(batch, oracle, run)

    def step(self, batch: Batch, state: State, oracle: Oracle, i: int) -> tuple[State, Proposal]:
        if os.environ.get("NOTES"):
            job = "-".join(os.environ.get(name, "0") for name in _JOB)
            time.sleep(float(os.environ.get("SLOW", "0")))
            runs = np.broadcast_to(np.asarray(batch.draws.runs), len(batch))
            samples = [f"{key}-{run}" for key, run in zip(batch.draws.keys, runs, strict=True)]
            with (Path(os.environ["NOTES"]) / job).open("a") as notes:
                notes.write(json.dumps([i, samples]) + "\n")
        return self.inner.step(batch, state, oracle, i)
