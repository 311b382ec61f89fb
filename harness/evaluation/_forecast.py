"""How long an evaluation will take on this machine, from a probe of some seconds.

Random samples go through the first run of every step, as many as the time of the probe allows: that says how many
survive each step, what an iteration costs, and after how many iterations the others are broken. A step costs a survivor
all of its runs. Where most are broken at once, all samples may fit into the time, and the few survivors, which make the
cost, through further runs.

The module is not called ``forecast`` because the package exports the function of that name.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from harness import attacks
from harness.engine import preflight
from harness.engine.types import Pool
from harness.errors import InvalidInput
from harness.evaluation import reference
from harness.evaluation._probe import Probe, waves
from harness.evaluation.placement import place
from harness.evaluation.plan import Plan
from harness.suites import Step
from harness.threat.rng import sample_keys
from harness.util.torch_state import pinned, threads

__all__ = ["Forecast", "StepForecast", "forecast"]

_FEWEST, _MOST, _MOST_VALUES = 64, 1024, 2**25
"""Samples of the probe, at least and at most, and the most pixel values of them where they are more than the fewest."""

_FIRST_STEP, _LATER_STEP = 12.0, 5.0
"""Seconds that the probe of a step takes, if it is not over before."""


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
        n: samples. correct, surviving: of them, without attack and after what the probe made of every step.
        workers: processes that share the work.
        preparing_seconds: of what comes before the first step: the audit, the choice of passes, the clean images.
        probe_seconds: what it took to find this out.
    """

    n: int
    correct: int
    surviving: int
    workers: int
    steps: tuple[StepForecast, ...]
    preparing_seconds: float
    probe_seconds: float

    @property
    def seconds(self) -> float:
        """Of the whole evaluation, but for the audit after the attack."""
        return self.preparing_seconds + sum(step.seconds for step in self.steps)


def forecast(plan: Plan) -> Forecast:
    """What ``plan`` will cost; nothing is stored.

    Raises:
        InvalidInput: this machine cannot run it, or it calls the reference, whose parts cannot be timed.
        ModelError: the model misbehaved.
        AttackError: an attack did.
    """
    if reference.runs(plan.suite):
        raise InvalidInput("the reference AutoAttack cannot be forecast: take --suite autoattack")
    began = time.perf_counter()
    target, settings, placement = plan.target, plan.settings, place(plan)
    x, y, names = plan.samples
    device, n = placement.device, len(x)
    most = min(_MOST, max(_FEWEST, _MOST_VALUES // max(1, x[:1].numel())))
    rows = np.random.default_rng(settings.seed).permutation(n)[:most].astype(np.int64)
    with pinned(device, dtype=target.dtype), torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        model = target.prepared(plan.threat, device)
        images = x[rows].to(target.dtype)
        pool = Pool(images, y[rows], sample_keys(images), names[rows])
        audited = time.perf_counter()
        plan.audited(model, device)
        # the probe works in one process, and so makes one worker's passes
        with threads(1 if device.type == "cpu" and settings.workers != 1 else None):
            prepared = preflight.prepare(model, pool, plan.threat, plan.suite, settings, device)
            preparing = time.perf_counter() - audited
            built = [
                (step, attacks.build(step.attack, plan.threat, prepared.classes, **step.parameters))
                for step in plan.suite.steps
            ]
            probe = Probe(pool, prepared.machine, settings.seed)
            if plan.threat.radius == 0 or not built:
                steps, surviving = _without_attack(probe, built, n)
            else:
                steps, surviving = _attacked(probe, built, n, placement.workers)
    return Forecast(
        n=n,
        correct=round(n * probe.correct_share),
        surviving=round(surviving),
        workers=placement.workers,
        steps=tuple(steps),
        preparing_seconds=preparing + n * probe.classifying_seconds / placement.workers,
        probe_seconds=time.perf_counter() - began,
    )


def _without_attack(probe: Probe, built: list[tuple[Step, attacks.Attack]], n: int) -> tuple[list[StepForecast], float]:
    """Steps that do nothing, as there are none or no point but the clean image, and how many samples are left."""
    for _ in probe.correct(time.perf_counter() + _FIRST_STEP):
        pass
    left = n * probe.correct_share
    return [StepForecast(step.name, round(left), 0, 0, 0.0) for step, _ in built], left


def _attacked(
    probe: Probe, built: list[tuple[Step, attacks.Attack]], n: int, workers: int
) -> tuple[list[StepForecast], float]:
    """Every step, and how many samples are left at the end."""
    steps: list[StepForecast] = []
    alive, left = torch.empty(0, dtype=torch.int64), 0.0
    end = time.perf_counter()
    for step, attack in built:
        # what a step leaves of its time is the next one's; what it takes too much is not
        end = max(end, time.perf_counter()) + (_LATER_STEP if steps else _FIRST_STEP)
        if steps:
            # these break few, and so a batch says enough, over more iterations
            found = probe.run(step, attack, waves(alive, probe.full, end), end)
            alive = torch.cat([found.survivors, alive[found.probed :]])
        else:
            found = probe.run(step, attack, probe.correct(end), end)
            alive, left = found.survivors, n * probe.correct_share
        each, surviving = left / max(1, found.probed), len(found.survivors)
        runs = surviving * attack.runs
        starts = each * (runs + found.starts_of_broken)
        iterations = each * (runs * found.run_length + found.iterations_of_broken)
        # several runs of a sample share a batch where there is room
        start, iteration = found.start, found.in_full_batch if each * runs >= probe.full else found.in_small_batch
        seconds = starts * start.seconds + iterations * iteration.seconds + each * found.judge_seconds
        steps.append(
            StepForecast(
                name=step.name,
                samples=round(left),
                forward=round(starts * start.forward + iterations * iteration.forward),
                backward=round(starts * start.backward + iterations * iteration.backward),
                seconds=seconds / workers,
            )
        )
        left = each * surviving
    return steps, left
