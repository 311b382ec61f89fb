"""What the steps of a suite do to some samples within some seconds, for `harness.evaluation.forecast`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from harness.attacks import Attack, Batch, Proposal
from harness.audit import model as checks
from harness.backends.passes import ChunkOracle, Tally
from harness.engine.types import Machine, Pool
from harness.suites import Step
from harness.threat.rng import Draws

__all__ = ["Cost", "Found", "Probe", "waves"]

_WAVE = 64
"""Samples that are attacked at once, at least."""

_SMALLEST = 8
"""Samples that are worth a wave of their own."""

_PACE = 1.0
"""Seconds of full batches that say what a pass takes."""

_UNTYPICAL = 2
"""Iterations at the beginning of a run that may cost other passes than those that follow."""


@dataclass
class Cost:
    """What some starts or iterations of one sample each took together.

    Attributes:
        count: how many. forward, backward: passes. seconds: on this machine.
    """

    count: float = 0
    forward: float = 0.0
    backward: float = 0.0
    seconds: float = 0.0

    def add(self, count: float, spent: tuple[int, int, float]) -> None:
        forward, backward, seconds = spent
        self.count += count
        self.forward += forward
        self.backward += backward
        self.seconds += seconds

    @property
    def each(self) -> Cost:
        """Of one of them."""
        count = self.count or 1
        return Cost(1, self.forward / count, self.backward / count, self.seconds / count)


@dataclass(frozen=True)
class Found:
    """What a step has done to some samples, in its first run or in more of them.

    Attributes:
        probed: how many they are. survivors: those that it left, rows of the pool.
        starts_of_broken, iterations_of_broken: how many runs and iterations those took that it broke, together.
        run_length: iterations of a run that does not break its sample.
        start: what beginning a run costs a sample. in_full_batch, in_small_batch: what an iteration does; where batches
            have room, an attack may make passes for later iterations.
        judge_seconds: of all samples together, for confirming what breaks them.
    """

    probed: int
    survivors: Tensor
    starts_of_broken: int
    iterations_of_broken: float
    run_length: float
    start: Cost
    in_full_batch: Cost
    in_small_batch: Cost
    judge_seconds: float


@dataclass
class _Ran:
    """What runs of a step on some samples added up to.

    Attributes:
        starts, iterations: of full batches. others: iterations of smaller batches, and the first ones of a run.
        whole_runs, iterations_of_whole: runs that broke nothing, and what they took together.
    """

    starts: Cost = field(default_factory=Cost)
    iterations: Cost = field(default_factory=Cost)
    others: Cost = field(default_factory=Cost)
    starts_of_broken: int = 0
    iterations_of_broken: float = 0
    whole_runs: int = 0
    iterations_of_whole: float = 0
    judge_seconds: float = 0.0


class Probe:
    """Runs attacks on some samples of a pool.

    Attributes:
        full: rows of a batch that is worth a pass.
        seconds: of classifying clean images. right: of these, those that the model has right.
    """

    def __init__(self, pool: Pool, machine: Machine, seed: int) -> None:
        self.pool, self.machine, self.seed = pool, machine, seed
        # a deterministic evaluation tries no points ahead, as if one row were a full batch
        self.full = max(machine.micro_batch, machine.choice[1])
        self.logits: dict[int, Tensor] = {}
        self.right, self.seconds = 0, 0.0

    @property
    def correct_share(self) -> float:
        """Of the samples that were classified so far."""
        return self.right / max(1, len(self.logits))

    @property
    def classifying_seconds(self) -> float:
        """Of one sample."""
        return self.seconds / max(1, len(self.logits))

    def correct(self, end: float) -> Iterator[Tensor]:
        """The samples that are right without attack, in `waves`; each wave is classified when it is asked for.

        Raises:
            ModelError: NaN.
        """
        for rows in waves(torch.arange(len(self.pool)), max(_WAVE, self.full), end):
            began = time.perf_counter()
            logits = self.machine.judge.logits(self.pool.x[rows].to(self.machine.device), "on the clean images").cpu()
            self.seconds += time.perf_counter() - began
            checks.refuse_nan(logits, self.pool.names[rows.numpy()])
            self.logits |= dict(zip(rows.tolist(), logits, strict=True))
            right = rows[logits.argmax(dim=1) == self.pool.y[rows]]
            self.right += len(right)
            yield right

    def run(self, step: Step, attack: Attack, samples: Iterable[Tensor], end: float) -> Found:
        """The first run of a step on waves of samples.

        Where time is left after all waves, the survivors go through the runs that follow. A run that takes longer ends
        when the time does, and what is not broken by then counts as surviving.

        Args:
            samples: rows of the pool, wave by wave. end: as `time.perf_counter` counts.
        """
        ran, probed = _Ran(), 0
        left, example = [torch.empty(0, dtype=torch.int64)], torch.empty(0, dtype=torch.int64)
        for wave in samples:
            left.append(self._attack(step, attack, wave, end, ran))
            probed += len(wave)
            example = wave if len(wave) else example
        survivors, run = torch.cat(left), 1
        while len(survivors) and run < attack.runs and time.perf_counter() < end:
            survivors = self._attack(step, attack, survivors, end, ran, run=run)
            run += 1
        if probed and ran.iterations.seconds < _PACE:  # too few stayed to fill a batch for long
            copies = torch.arange(max(len(example), self.full)) % len(example)
            self._attack(step, attack, example[copies], time.perf_counter() + _PACE, ran, leave=False)
        return Found(
            probed=probed,
            survivors=survivors,
            starts_of_broken=ran.starts_of_broken,
            iterations_of_broken=ran.iterations_of_broken,
            run_length=ran.iterations_of_whole / ran.whole_runs if ran.whole_runs else attack.steps,
            start=ran.starts.each,
            in_full_batch=(ran.iterations if ran.iterations.count else ran.others).each,
            in_small_batch=(ran.others if ran.others.count else ran.iterations).each,
            judge_seconds=ran.judge_seconds,
        )

    def _attack(
        self, step: Step, attack: Attack, rows: Tensor, end: float, ran: _Ran, *, run: int = 0, leave: bool = True
    ) -> Tensor:
        """A run of a step; returns the samples that it leaves.

        It goes on to the first iteration that is typical of a run whatever the time, or nothing would be known.

        Args:
            rows: of the pool. leave: whether a sample leaves when it is broken; else batches stay full, and only what
                passes cost is noted.
        """
        if not len(rows):
            return rows
        device = self.machine.device
        tally, over = Tally.empty(len(self.pool)), [rows[:0]]
        logits = torch.stack([self.logits[row] for row in rows.tolist()])
        draws = Draws(self.pool.keys[rows.numpy()], self.seed, step.name, run)
        batch = Batch(self.pool.x[rows].to(device), self.pool.y[rows].to(device), logits.to(device), draws)
        oracle = self._oracle(step, rows, tally)
        asked = time.perf_counter()
        state, proposal = attack.start(batch, oracle, run)
        ran.starts.add(len(rows), _spent(oracle, tally, (0, 0), asked))
        # of a short run every iteration counts, as none is like another
        first = _UNTYPICAL if attack.steps > 2 * _UNTYPICAL else 0
        position = torch.zeros(len(rows))  # iterations that each sample has behind it
        for done in range(attack.steps + 1):
            if leave:
                broken, ended = self._broken(step, batch, rows, proposal, ran), torch.zeros(len(rows), dtype=torch.bool)
                if proposal.over is not None and done:
                    ended = proposal.over.cpu() & ~broken
                ran.starts_of_broken += (run + 1) * int(broken.sum())
                ran.iterations_of_broken += run * attack.steps * int(broken.sum()) + float(position[broken].sum())
                ran.whole_runs += int(ended.sum())
                ran.iterations_of_whole += float(position[ended].sum())
                over.append(rows[ended])
                if bool((broken | ended).any()):
                    kept = (~(broken | ended)).nonzero().squeeze(1)
                    rows, position, there = rows[kept], position[kept], kept.to(device)
                    batch, state = batch.rows(there), {name: one.index_select(0, there) for name, one in state.items()}
                    oracle = self._oracle(step, rows, tally)
            if done == attack.steps or not len(rows) or (done > first and time.perf_counter() > end):
                break
            before, asked = (int(tally.forward.sum()), int(tally.backward.sum())), time.perf_counter()
            state, proposal = attack.step(batch, state, oracle, done)
            spent = _spent(oracle, tally, before, asked)
            share = attack.done(state)
            reached = torch.full((len(rows),), done + 1.0) if share is None else attack.steps * share.cpu().float()
            made, position = float((reached - position).sum()), reached
            (ran.iterations if len(rows) >= self.full and done >= first else ran.others).add(made, spent)
        if leave:
            ran.whole_runs += len(rows)
            ran.iterations_of_whole += attack.steps * len(rows)
        return torch.cat([rows, *over])

    def _broken(self, step: Step, batch: Batch, rows: Tensor, proposal: Proposal, ran: _Ran) -> Tensor:
        """Which samples the judge finds broken, bool ``[m]`` on the CPU.

        Raises:
            AttackError: a proposal lies outside the threat model or is not finite.
        """
        broken, judge = torch.zeros(len(rows), dtype=torch.bool), self.machine.judge
        claimed = proposal.claimed.nonzero().squeeze(1)
        if len(claimed):
            began, there = time.perf_counter(), claimed.cpu()
            x = batch.x.index_select(0, claimed)
            points = judge.threat.without_rounding(proposal.points.index_select(0, claimed), x)
            names = self.pool.names[rows[there].numpy()]
            confirmed, _ = judge.confirm(points, x, batch.y[claimed], step=step.name, names=names)
            broken[there] = confirmed.cpu()
            ran.judge_seconds += time.perf_counter() - began
        return broken

    def _oracle(self, step: Step, rows: Tensor, tally: Tally) -> ChunkOracle:
        machine = self.machine
        ahead = min(machine.micro_batch, machine.passes.limit)
        return ChunkOracle(
            machine.passes, rows, tally, step.name, self.pool.names, micro_batch=ahead, device=machine.device
        )


def waves(rows: Tensor, size: int, end: float) -> Iterator[Tensor]:
    """Some of ``rows`` at a time, as many as there is time for and at least once.

    Each wave is twice as large as the one before, or as large as the pace so far allows: where most samples leave at
    once, the few others make one batch.

    Args:
        size: of the first wave. end: as `time.perf_counter` counts.
    """
    taken, began = 0, time.perf_counter()
    while True:
        yield rows[taken : taken + size]
        taken, now = min(len(rows), taken + size), time.perf_counter()
        affordable = int(taken * (end - now) / max(1e-9, now - began))
        size = min(2 * size, affordable)
        if taken == len(rows) or size < _SMALLEST:
            return


def _spent(oracle: ChunkOracle, tally: Tally, before: tuple[int, int], asked: float) -> tuple[int, int, float]:
    """Passes and seconds since then; waits for the device."""
    oracle.settle()
    forward, backward = int(tally.forward.sum()) - before[0], int(tally.backward.sum()) - before[1]
    return forward, backward, time.perf_counter() - asked
