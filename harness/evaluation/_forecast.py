"""How long an evaluation will take on this machine, from a probe of some seconds.

Random samples go through the first run of every step, as many as the time of the probe allows: that says how many
survive each step, what an iteration costs, and after how many iterations the others are broken. A step costs a survivor
all iterations of all of its runs. Where most are broken at once, all samples may fit into the time, and the few
survivors, which make the cost, through further runs.

The module is not called ``forecast`` because the package exports the function of that name.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
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

_WAVE, _MOST = 64, 1024
"""Samples that are probed at once, at least; samples of the whole probe, at most."""

_FIRST_STEP, _LATER_STEP = 12.0, 5.0
"""Seconds that the probe of a step takes, if it is not over before."""

_PACE = 1.0
"""Seconds of full batches that say what a pass takes."""

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
        """Of the whole evaluation."""
        return self.preparing_seconds + sum(step.seconds for step in self.steps)


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
        images = x[rows].to(target.dtype)
        pool = Pool(images, y[rows], sample_keys(images), names[rows])
        audited = time.perf_counter()
        plan.audited(model, device)
        prepared = preflight.prepare(model, pool, plan.threat, plan.suite, settings, device)
        preparing = time.perf_counter() - audited
        built = [
            (step, attacks.build(step.attack, plan.threat, prepared.classes, **step.parameters))
            for step in plan.suite.steps
        ]
        probe = _Probe(pool, prepared.machine, settings.seed)
        steps: list[StepForecast] = []
        alive, left = torch.empty(0, dtype=torch.int64), 0.0
        end = time.perf_counter()
        for step, attack in built:
            # what a step leaves of its time is the next one's
            end += _LATER_STEP if steps else _FIRST_STEP
            if steps:
                # these break few, and so a batch says enough, over more iterations
                found = probe.run(step, attack, torch.split(alive, prepared.machine.micro_batch), end)
                alive = torch.cat([found.survivors, alive[found.probed :]])
            else:
                found = probe.run(step, attack, probe.correct(), end)
                alive, left = found.survivors, n * probe.correct_share
            each, surviving = left / max(1, found.probed), len(found.survivors)
            # a run begins with passes of its own; what is broken at once costs little else
            iterations = each * (
                surviving * attack.runs * (attack.steps + found.iterations_of_start)
                + found.starts_of_broken * found.iterations_of_start
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
            left = each * surviving
        if not built:  # clean accuracy alone
            for _ in probe.correct():
                if time.perf_counter() - began > _FIRST_STEP:
                    break
            left = n * probe.correct_share
    return Forecast(
        n=n,
        correct=round(n * probe.correct_share),
        surviving=round(left),
        workers=placement.workers,
        steps=tuple(steps),
        preparing_seconds=preparing + n * probe.classifying_seconds / placement.workers,
        probe_seconds=time.perf_counter() - began,
    )


@dataclass(frozen=True)
class _Found:
    """What a step has done to some samples, in its first run or in more of them.

    Attributes:
        probed: how many they are. survivors: those that it left, rows of the pool.
        starts_of_broken, iterations_of_broken: how many runs and iterations those took that it broke, together.
        iterations_of_start: what beginning a run costs a sample, in iterations.
        forward, backward, seconds: of one iteration of one sample in a full batch.
    """

    probed: int
    survivors: Tensor
    starts_of_broken: int
    iterations_of_broken: int
    iterations_of_start: float
    forward: float
    backward: float
    seconds: float


@dataclass
class _Pace:
    """What starts and iterations of full batches took, in all.

    Attributes:
        started: samples that began a run. start_forward: their forward passes for that.
        iterations: of one sample each. forward, backward: their passes. seconds: their time.
    """

    started: int = 0
    start_forward: int = 0
    iterations: int = 0
    forward: int = 0
    backward: int = 0
    seconds: float = 0.0


class _Probe:
    """Runs attacks on some samples of a pool."""

    def __init__(self, pool: Pool, machine: Machine, seed: int) -> None:
        self.pool, self.machine, self.seed = pool, machine, seed
        self.logits: dict[int, Tensor] = {}
        self.right = 0
        self.seconds = 0.0

    @property
    def classifying_seconds(self) -> float:
        """Of one sample."""
        return self.seconds / max(1, len(self.logits))

    @property
    def correct_share(self) -> float:
        """Of the samples that were classified so far."""
        return self.right / max(1, len(self.logits))

    def correct(self) -> Iterator[Tensor]:
        """The samples that are right without attack, wave by wave; each wave is classified when it is asked for."""
        for rows in torch.split(torch.arange(len(self.pool)), max(_WAVE, self.machine.micro_batch)):
            began = time.perf_counter()
            logits = self.machine.judge.logits(self.pool.x[rows].to(self.machine.device), "on the clean images").cpu()
            self.seconds += time.perf_counter() - began
            self.logits |= dict(zip(rows.tolist(), logits, strict=True))
            right = rows[logits.argmax(dim=1) == self.pool.y[rows]]
            self.right += len(right)
            yield right

    def run(self, step: Step, attack: Attack, waves: Iterable[Tensor], end: float) -> _Found:
        """The first run of a step on as many waves of samples as there is time for, at least the first.

        Where time is left after all waves, the survivors go through the runs that follow. A run that takes longer ends
        when the time does, and what is not broken by then counts as surviving.

        Args:
            end: as `time.perf_counter` counts.
        """
        pace, began = _Pace(), time.perf_counter()
        probed, starts, of_broken, left = 0, 0, 0, [torch.empty(0, dtype=torch.int64)]
        example = torch.empty(0, dtype=torch.int64)
        for number, wave in enumerate(waves, start=1):
            surviving, spent = self._attack(step, attack, wave, end, pace)
            probed, of_broken, starts = probed + len(wave), of_broken + spent, starts + len(wave) - len(surviving)
            left.append(surviving)
            example = wave if len(wave) else example
            now = time.perf_counter()
            if now + (now - began) / number > end:
                break
        survivors, run = torch.cat(left), 1
        while len(survivors) and run < attack.runs and time.perf_counter() < end:
            surviving, spent = self._attack(step, attack, survivors, end, pace, run=run)
            broken = len(survivors) - len(surviving)
            of_broken, starts = of_broken + spent + broken * run * attack.steps, starts + broken * (run + 1)
            survivors, run = surviving, run + 1
        if probed and pace.seconds < _PACE:  # too few stayed to fill a batch for long
            copies = torch.arange(max(len(example), self.machine.micro_batch)) % len(example)
            self._attack(step, attack, example[copies], time.perf_counter() + _PACE, pace, leave=False)
        each = max(1, pace.iterations)
        forward, started = pace.forward / each, pace.start_forward / max(1, pace.started)
        return _Found(
            probed=probed,
            survivors=survivors,
            starts_of_broken=starts,
            iterations_of_broken=of_broken,
            iterations_of_start=started / forward if forward else 0.0,
            forward=forward,
            backward=pace.backward / each,
            seconds=pace.seconds / each,
        )

    def _attack(
        self,
        step: Step,
        attack: Attack,
        rows: Tensor,
        end: float,
        pace: _Pace,
        *,
        run: int = 0,
        leave: bool = True,
    ) -> tuple[Tensor, int]:
        """The samples that a run leaves, and how many of its iterations the others took together.

        Args:
            rows: of the pool. leave: whether a sample leaves when it is broken; else batches stay full.
        """
        if not len(rows):
            return rows, 0
        device, of_broken = self.machine.device, 0
        draws = Draws(self.pool.keys[rows.numpy()], self.seed, step.name, run)
        logits = torch.stack([self.logits[row] for row in rows.tolist()])
        batch = Batch(self.pool.x[rows].to(device), self.pool.y[rows].to(device), logits.to(device), draws)
        tally = Tally.empty(len(self.pool))
        oracle = self._oracle(step, rows, tally)
        state, proposal = attack.start(batch, oracle, run)
        oracle.settle()
        pace.started += len(rows)
        pace.start_forward += int(tally.forward.sum())
        for done in range(attack.steps + 1):
            broken = proposal.claimed.cpu()
            if leave and bool(broken.any()):
                of_broken += done * int(broken.sum())
                kept = (~broken).nonzero().squeeze(1)
                rows, there = rows[kept], kept.to(device)
                batch, state = batch.rows(there), {name: value[there] for name, value in state.items()}
                oracle = self._oracle(step, rows, tally)
            if done == attack.steps or not len(rows) or time.perf_counter() > end:
                break
            before, asked = (int(tally.forward.sum()), int(tally.backward.sum())), time.perf_counter()
            state, proposal = attack.step(batch, state, oracle, done)
            oracle.settle()
            if len(rows) >= self.machine.micro_batch and done >= min(_UNTYPICAL, attack.steps - 1):
                pace.seconds += time.perf_counter() - asked
                pace.iterations += len(rows)
                pace.forward += int(tally.forward.sum()) - before[0]
                pace.backward += int(tally.backward.sum()) - before[1]
        return rows, of_broken

    def _oracle(self, step: Step, rows: Tensor, tally: Tally) -> ChunkOracle:
        # a batch that is full has no room for points ahead
        return ChunkOracle(
            self.machine.passes, rows, tally, step.name, self.pool.names, micro_batch=1, device=self.machine.device
        )
