"""How long an evaluation will take on this machine, from a probe of some seconds.

A random few of the samples go through the first run of every step, as far as the time of the probe allows: that says
how many survive each step, what an iteration costs, and after how many iterations the others are broken. A step costs a
survivor all iterations of all of its runs.

The module is not called ``forecast`` because the package exports the function of that name.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness import attacks
from harness.attacks import Attack, Batch
from harness.backends.passes import ChunkOracle, Tally
from harness.engine import preflight
from harness.engine.types import Machine, Pool
from harness.errors import InvalidInput
from harness.evaluation import reference
from harness.evaluation.placement import place
from harness.evaluation.plan import Plan
from harness.suites import Step
from harness.threat.rng import Draws, sample_keys
from harness.util.torch_state import pinned, threads

__all__ = ["Forecast", "StepForecast", "forecast"]

_FEWEST, _MOST = 64, 256
"""Samples of the probe, more of them where passes are fast."""

_FIRST_STEP, _LATER_STEP = 12.0, 5.0
"""Seconds that the probe of a step takes, if it is not over before."""

_UNTYPICAL = 2
"""Iterations at the beginning of a run that may cost other passes than those that follow."""


@dataclass(frozen=True)
class StepForecast:
    """What one step will cost.

    Attributes:
        samples: how many go through it. forward, backward: its passes. seconds: on this machine.
    """

    name: str
    samples: int
    forward: int
    backward: int
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """What an evaluation will cost.

    Attributes:
        n: samples. correct, surviving: of them, without attack and after the first run of every step, by the probe.
        workers: processes that share the work. probe_seconds: what it took to find this out.
    """

    n: int
    correct: int
    surviving: int
    workers: int
    steps: tuple[StepForecast, ...]
    probe_seconds: float

    @property
    def seconds(self) -> float:
        """Of the whole evaluation."""
        return sum(step.seconds for step in self.steps)


def forecast(plan: Plan) -> Forecast:
    """What ``plan`` will cost; nothing is stored.

    Raises:
        InvalidInput: this machine cannot run it, or it calls the reference, whose parts cannot be timed.
        ModelError: the model misbehaved.
    """
    if reference.runs(plan.suite):
        raise InvalidInput("the reference AutoAttack cannot be forecast: take --suite autoattack")
    began = time.perf_counter()
    target, settings, placement = plan.target, plan.settings, place(plan)
    x, y, names = plan.samples
    device, n = placement.device, len(x)
    rows = np.random.default_rng(settings.seed).permutation(n)[:_MOST].astype(np.int64)
    # the probe works in one process, and so makes one worker's passes
    alone = threads(1 if device.type == "cpu" and placement.workers > 1 else None)
    with (
        pinned(device, dtype=target.dtype),
        torch.cuda.device(device) if device.type == "cuda" else nullcontext(),
        alone,
    ):
        model = target.prepared(plan.threat, device)
        probe = x[rows].to(target.dtype)
        pool = Pool(probe, y[rows], sample_keys(probe), names[rows])
        prepared = preflight.prepare(model, pool, plan.threat, plan.suite, settings, device)
        built = [
            (step, attacks.build(step.attack, plan.threat, prepared.classes, **step.parameters))
            for step in plan.suite.steps
        ]
        probe_of = _Probe(pool, prepared.machine, settings.seed)
        alive = correct = probe_of.correct(built[0][1].steps if built else 0)
        steps: list[StepForecast] = []
        left = n / len(probe_of) * len(correct)
        for step, attack in built:
            # the later steps break few, and so a batch of them says enough, over more iterations
            probed = alive[: prepared.machine.micro_batch] if steps else alive
            found = probe_of.run(step, attack, probed, _LATER_STEP if steps else _FIRST_STEP)
            each = left / max(1, len(probed))
            surviving, broken = len(found.survivors), len(probed) - len(found.survivors)
            # a run begins with passes of its own; what is broken at once costs little else
            iterations = each * (
                surviving * attack.runs * (attack.steps + found.iterations_of_start)
                + broken * found.iterations_of_start
                + found.iterations_of_broken
            )
            steps.append(
                StepForecast(
                    name=step.name,
                    samples=round(left),
                    forward=round(iterations * found.forward),
                    backward=round(iterations * found.backward),
                    seconds=iterations * found.seconds / placement.workers,
                )
            )
            left = each * len(found.survivors)
            alive = torch.cat([found.survivors, alive[len(probed) :]])
    return Forecast(
        n=n,
        correct=round(n / len(probe_of) * len(correct)),
        surviving=round(left),
        workers=placement.workers,
        steps=tuple(steps),
        probe_seconds=time.perf_counter() - began,
    )


@dataclass(frozen=True)
class _Found:
    """What the first run of a step has done to the samples of the probe.

    Attributes:
        survivors: rows of the pool. iterations_of_broken: of all samples that it broke, together.
        iterations_of_start: what beginning a run costs a sample, in iterations.
        forward, backward, seconds: of one iteration of one sample.
    """

    survivors: Tensor
    iterations_of_broken: int
    iterations_of_start: float
    forward: float
    backward: float
    seconds: float


class _Probe:
    """Runs attacks on the first samples of a pool."""

    def __init__(self, pool: Pool, machine: Machine, seed: int) -> None:
        self.pool, self.machine, self.seed = pool, machine, seed
        self.size = len(pool)

    def __len__(self) -> int:
        return self.size

    def correct(self, steps: int) -> Tensor:
        """The samples that are right without attack, of so many as ``steps`` iterations leave time for."""
        x = self.pool.x[:].to(self.machine.device)
        self.logits = self.machine.judge.logits(x, "on the clean images").cpu()
        few = x[: min(_FEWEST, len(x), 24)]
        self.machine.passes.drain()
        self.machine.passes.gradient(few, lambda logits, part: logits.logsumexp(dim=1), "of the probe")
        each = self.machine.passes.drain() / len(few)
        affordable = int(_FIRST_STEP / max(1e-9, each * max(1, steps)))
        self.size = min(len(self.pool), max(_FEWEST, affordable))
        right = self.logits.argmax(dim=1) == self.pool.y
        return right[: self.size].nonzero().squeeze(1)

    def run(self, step: Step, attack: Attack, alive: Tensor, most_seconds: float) -> _Found:
        """The first run of a step on samples, for so many seconds at most."""
        machine = self.machine
        # few rows would not show what a row costs in a full batch
        filled = alive if len(alive) else torch.arange(1)
        rows = filled[torch.arange(max(len(filled), machine.micro_batch)) % len(filled)]
        draws = Draws(self.pool.keys[rows.numpy()], self.seed, step.name, 0)
        x, y = self.pool.x[rows].to(machine.device), self.pool.y[rows].to(machine.device)
        batch, tally = Batch(x, y, self.logits[rows].to(machine.device), draws), Tally.empty(len(self.pool))
        names, passes, device = self.pool.names, machine.passes, machine.device
        # a batch that is full has no room for points ahead
        oracle = ChunkOracle(passes, rows, tally, step.name, names, micro_batch=1, device=device)
        state, proposal = attack.start(batch, oracle, 0)
        oracle.settle()
        begun = int(tally.forward.sum()) / len(rows)
        claimed = proposal.claimed.cpu()[: len(alive)]
        spent, made, seconds = 0, 0, 0.0
        first = min(_UNTYPICAL, attack.steps - 1)
        for i in range(attack.steps):
            if i == first:
                oracle.settle()
                before, began = (int(tally.forward.sum()), int(tally.backward.sum())), time.perf_counter()
            spent += int((~claimed).sum())
            state, proposal = attack.step(batch, state, oracle, i)
            claimed = claimed | proposal.claimed.cpu()[: len(alive)]
            made, seconds = i + 1 - first, time.perf_counter() - began if i >= first else 0.0
            if seconds > most_seconds:
                break
        oracle.settle()
        survivors = alive[~claimed]
        each = made * len(rows)
        forward = (int(tally.forward.sum()) - before[0]) / each
        return _Found(
            survivors=survivors,
            iterations_of_broken=spent - len(survivors) * (made + first),
            iterations_of_start=begun / forward if forward else 0.0,
            forward=forward,
            backward=(int(tally.backward.sum()) - before[1]) / each,
            seconds=seconds / each,
        )
