"""Runs a suite over a pool of samples: which steps are done, which samples survive, and what it has cost.

The state of the pool is kept here between tasks; `harness.engine.task` does one task, `harness.engine.executors`
spreads tasks over processes, and `harness.engine.snapshots` saves both states, so that a killed run continues.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness import attacks
from harness.audit import kinds
from harness.audit import model as checks
from harness.audit.flags import Flag, unique
from harness.backends.equivalence import chosen
from harness.backends.passes import Tally
from harness.engine import executors, preflight
from harness.engine.executors import Executor
from harness.engine.malloc import keep_freed_memory, return_freed_memory
from harness.engine.points import points_of
from harness.engine.scheduling import parallel_runs, rebalance, shares, split, stop_points
from harness.engine.snapshots import CleanLogits, Part, State
from harness.engine.types import Assignment, AttackProgress, Index, Pool, Snapshot, Task, TaskResult
from harness.errors import HarnessError, ModelError
from harness.results.record import StepRecord, Verdicts
from harness.settings import Settings
from harness.suites import Step, Suite
from harness.threat import ThreatModel
from harness.threat.rng import Draws, sample_keys
from harness.util.images import Images, StoredImages, cast

__all__ = ["Finding", "run"]


@dataclass
class Finding:
    """What a suite has found out about ``n`` samples.

    Attributes:
        points: ``[n, ...]`` the confirmed adversarial example of each sample, the clean image where there is none.
        passes: what the passes were made with, in plain words. batch_size: the largest batch.
        model_seconds: inside the model. busy_seconds: in all, summed over processes.
        state: what a run that is killed now would continue from; to be cleared once the result is stored.
        logits: ``[n, k]`` the plain model's output on the clean images, where it is known.
    """

    verdicts: Verdicts
    points: Images
    steps: list[StepRecord]
    flags: list[Flag]
    passes: list[str]
    batch_size: int
    model_seconds: float
    busy_seconds: float
    state: State = field(default_factory=lambda: State(None))
    logits: Tensor | None = None


def run(
    model: nn.Module,
    x: Images,
    y: Tensor,
    names: Index,
    threat: ThreatModel,
    suite: Suite,
    settings: Settings,
    *,
    device: torch.device,
    size: int,
    folder: Path | None,
    progress: Callable[[AttackProgress], None] | None,
) -> Finding:
    """Attack samples with a suite, from the saved state if there is one.

    Args:
        model: in eval mode, on ``device``.
        x: ``[n, ...]`` in [0, 1], on the CPU. y: int64 ``[n]``. names: their positions in the data set.
        size: how many processes.
        folder: where the state is saved, and stays until the caller clears it; None keeps nothing.

    Raises:
        InvalidInput, ModelError: see `harness.engine.preflight`; what was finished is kept in ``folder``.
    """
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    dtype = dtype if dtype == torch.float64 else torch.float32
    x = cast(x, dtype)
    pool = Pool(x, y, sample_keys(x), names)
    kept = False
    if isinstance(x, StoredImages):
        return_freed_memory()
    elif device.type == "cpu":
        kept = keep_freed_memory()
    state = State(folder)
    saved = state.pool()
    pinned = None if saved is None else (saved["backend"], saved["micro_batch"])
    prepared = preflight.prepare(model, pool, threat, suite, settings, device, workers=size, pinned=pinned)
    if kept:
        prepared.notes.append("kept-heap")
    executor = executors.executor(size, pool, prepared.machine, state)
    suite_run = _SuiteRun(pool, suite, threat, settings, prepared, executor, state, progress)
    try:
        suite_run.run(saved)
    finally:
        suite_run.executor.close()
    return suite_run.finding()


class _SuiteRun:
    """The state of the pool, and what changes it."""

    def __init__(
        self,
        pool: Pool,
        suite: Suite,
        threat: ThreatModel,
        settings: Settings,
        prepared: preflight.Prepared,
        executor: Executor,
        state: State,
        progress: Callable[[AttackProgress], None] | None,
    ) -> None:
        self.pool, self.suite, self.threat, self.seed = pool, suite, threat, settings.seed
        self.one_by_one = settings.deterministic
        self.prepared, self.executor, self.state, self.progress = prepared, executor, state, progress
        self.points = points_of(pool.x, state.folder)
        self.broken_by = np.full(len(pool), -1, dtype=np.int64)
        self.forward = np.zeros(len(pool), dtype=np.int64)
        self.backward = np.zeros(len(pool), dtype=np.int64)
        self.records: list[StepRecord] = []
        self.flags: list[Flag] = list(prepared.flags)
        self.busy_seconds = self.model_seconds = 0.0
        self.position, self.next_run = 0, 0
        self.saved_at: tuple[int, int, int] | None = None
        self.open = _OpenStep(len(pool))
        # the guard of the fast passes; None once the plain model makes all passes
        self.guard, self.plain_from = prepared.guard, ""

    def run(self, saved: dict[str, Any] | None) -> None:
        """Run the suite to its end, from the saved state if there is one."""
        if saved is not None and (
            self.prepared.changed(saved["logits"]) is not None or not self.points.fits(saved["points"])
        ):
            # the same name and weights but other code around them: the state is that of another model; or the images
            # were held elsewhere when it was saved
            saved = None
        if saved is None:
            self._clean()
        else:
            self._restore(saved)
        parts = self.state.parts(self.position, self.next_run)
        try:
            while self.position < len(self.suite.steps):
                step = self.suite.steps[self.position]
                attack = attacks.build(step.attack, self.threat, self.prepared.classes, **step.parameters)
                doubt = self._attempt(step, attack, parts)
                parts = []
                if doubt is None:
                    self._close(step, attack)
                else:
                    self._use_plain_passes(step, doubt)
            self._check_again()
        except ModelError:
            self._save(force=True, in_flight=True)
            raise

    def _attempt(self, step: Step, attack: attacks.Attack, parts: list[Part]) -> str | None:
        """The remaining runs of a step; a reason to make them again with the plain model, if there is one."""
        if self.threat.radius == 0:
            return None  # the clean image is the only point there is
        try:
            while self.next_run < attack.runs and self.surviving.any():
                self._some_runs(step, attack, parts)
                parts = []
                self._save()
        except ModelError as error:
            if self.guard is None:
                raise
            return str(error)
        return self._disagreement(step)

    def _disagreement(self, step: Step) -> str | None:
        """How fast passes disagree with the plain model at the last points of the samples that survive a step."""
        survivors = np.flatnonzero(self.surviving)
        if self.guard is None or len(survivors) == 0:
            return None
        rows = survivors[chosen(self.pool.keys[survivors])]
        x = self.pool.x[torch.from_numpy(rows)].to(self.prepared.machine.device)
        draws = Draws(self.pool.keys[rows], self.seed, f"{step.name}, compared")
        # a random point for samples whose task was finished before this process began
        points = self.guard.inside(x, draws, 0)
        for place, row in enumerate(rows.tolist()):
            if row in self.open.last:
                points[place] = self.open.last[row].to(points)
        began = time.perf_counter()
        try:
            comparison = self.guard.after(self.prepared.machine.passes, points, x, draws)
        except HarnessError as error:
            return str(error)
        self.busy_seconds += time.perf_counter() - began
        self.model_seconds += self.prepared.machine.passes.drain() + self.prepared.machine.judge.drain()
        self.forward[rows] += comparison.forward
        self.backward[rows] += comparison.backward
        sample = int(self.pool.names[rows[comparison.worst]])
        return None if comparison.agreed else f"{comparison}, most on sample {sample}"

    def _use_plain_passes(self, step: Step, doubt: str) -> None:
        """Run this step once more, and all that follow, with the plain model."""
        self.flags.append(kinds.PASSES_REPLACED(reason=doubt[:200]).of_step(step.name))
        self._adopt_plain_passes(step.name)
        self.next_run = 0
        self.open.finished[:] = False
        self.open.last.clear()
        self._save(force=True)

    def _adopt_plain_passes(self, step: str) -> None:
        self.plain_from, self.guard = step, None
        self.prepared.notes.append(f"plain from {step} on")
        machine = self.prepared.machine
        self.prepared = replace(self.prepared, machine=replace(machine, passes=machine.judge.plain()))
        self.executor.close()
        self.executor = executors.executor(self.executor.size, self.pool, self.prepared.machine, self.state)

    def _check_again(self) -> None:
        """Flag a model that no longer answers as it did before the attack."""
        now = self.prepared.machine.judge.logits(
            self.pool.x[:1].to(self.prepared.machine.device), "after the attack"
        ).cpu()
        self.forward[0] += 1
        changed = self.prepared.changed(now)
        self.flags += [changed] if changed else []

    @property
    def surviving(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        surviving: np.ndarray[Any, np.dtype[np.bool_]] = self.correct & (self.broken_by < 0)
        return surviving

    def _save(self, *, force: bool = False, in_flight: bool = False) -> None:
        """Save the state of the pool, if it is not saved and that is due."""
        at = (self.position, self.next_run, int(self.open.finished.sum()))
        if (force or at != self.saved_at) and self.state.save_pool(self._content, force=force, in_flight=in_flight):
            self.saved_at = at

    def _clean(self) -> None:
        """Classify the clean images, but for those of which the saved state knows the output."""
        known = self._known_clean()
        began = time.perf_counter()
        index = np.setdiff1d(np.arange(len(self.pool)), known.index)
        logits, seconds = self.executor.logits(index) if len(index) else (known.logits[:0], 0.0)
        busy = (time.perf_counter() - began) if self.executor.size == 1 else seconds
        order = np.argsort(np.concatenate([known.index, index]))
        self._take_logits(torch.cat([known.logits.to(logits), logits])[torch.from_numpy(order)])
        self.forward += 1 + self.prepared.forward
        self.backward += self.prepared.backward
        self.model_seconds += known.seconds + seconds
        self.busy_seconds += known.seconds + busy
        checks.refuse_nan(self.logits, self.pool.names)
        self._save(force=True)

    def _known_clean(self) -> CleanLogits:
        """What the saved state knows of the output on clean images; a state of another model is removed."""
        nothing = CleanLogits(np.zeros(0, np.int64), torch.zeros(0, self.prepared.classes), 0.0)
        known = self.state.clean() or nothing
        first = [row for place, row in enumerate(known.index[:2].tolist()) if row == place]
        if first and self.prepared.changed(known.logits[: len(first)]) is None:
            return known
        # tasks without their pool, too, would be taken for tasks of the run that begins now
        self.state.clear()
        return nothing

    def _take_logits(self, logits: Tensor) -> None:
        self.logits = logits
        self.clean_pred = logits.argmax(dim=1).numpy()
        self.correct = self.clean_pred == self.pool.y.numpy()
        self.adv_pred = self.clean_pred.copy()

    def _some_runs(self, step: Step, attack: attacks.Attack, parts: list[Part]) -> None:
        """The next runs of a step, side by side where few samples are left, spread over the workers.

        Where the memory does not hold the attack's states for all samples, they are done for the next of them only.
        """
        unfinished = np.flatnonzero(self.surviving & ~self.open.finished)
        at_once = self.prepared.machine.rows_at_once
        surviving = unfinished if at_once is None else unfinished[: at_once * self.executor.size]
        fitting = _disjoint([p for p in parts if np.isin(p.index.numpy(), surviving).all()])
        rows = self.prepared.machine.step_rows * self.executor.size
        left = attack.runs - self.next_run
        # side by side, a sample leaves all of its runs at the first success, so that another run finds the point
        one_by_one = self.one_by_one or self.open.finished.any() or len(surviving) < len(unfinished)
        most = 1 if one_by_one else parallel_runs(left, len(surviving), rows)
        parallel = fitting[0].parallel_runs if fitting else most
        fitting = [part for part in fitting if part.parallel_runs == parallel]

        def task(index: Index, runs: Index, stop_at: float) -> Task:
            logits = self.logits[torch.from_numpy(index)] * self.prepared.machine.judge.scale
            round_ = (self.next_run, parallel)
            return Task(self.position, step.name, attack, self.seed, *round_, index, runs, logits, stop_at)

        assignments: list[Assignment] = [
            (task(part.index.numpy(), part.runs.numpy(), part.stop_at), part.snapshot) for part in fitting
        ]
        index = np.repeat(surviving, parallel)
        runs = np.tile(np.arange(self.next_run, self.next_run + parallel), len(surviving))
        covered = {pair for part in fitting for pair in part.pairs}
        rest = np.array([pair not in covered for pair in zip(index.tolist(), runs.tolist(), strict=True)])
        if rest.any():
            index, runs = index[rest], runs[rest]
            free = max(1, self.executor.size - len(assignments))
            parts_of_work = shares(index, free)
            stops = stop_points(parts_of_work, free)
            assignments += [
                (task(index[part], runs[part], stop), None) for part, stop in zip(parts_of_work, stops, strict=True)
            ]
        elif len(fitting) <= self.executor.size // 2:
            assignments = self._split(assignments)
        total, furthest = int(self.correct.sum()), 0.0
        all_of_them = int(self.surviving.sum())
        before, share = 1 - len(unfinished) / all_of_them, len(surviving) / all_of_them
        others = all_of_them - len(surviving)

        first = self.next_run

        def tell(left: int) -> None:
            if self.progress is not None:
                so_far = (first + (before + furthest * share) * parallel) / attack.runs
                self.progress(AttackProgress(step.name, so_far, others + min(left, len(surviving)), total))

        def report(done: float, left: int) -> None:
            nonlocal furthest
            self._save(in_flight=True)
            furthest = max(furthest, done)  # after rebalancing, shares are of less than all work
            tell(left)

        began = time.perf_counter()
        results = self.executor.run(assignments, report)
        again = self._rebalanced(assignments, results, attack.steps)
        if again:
            elsewhere = max(0, len(surviving) - sum(task.samples for task, _ in again))
            results = [result for result in results if result.unfinished is None]
            results += self.executor.run(again, lambda done, left: report(done, elsewhere + left))
        self._merge(results)
        self.open.seconds += time.perf_counter() - began
        for done, _ in assignments:
            self.open.finished[done.index] = True
        if not (self.surviving & ~self.open.finished).any():
            self.next_run += parallel
            self.open.finished[:] = False
        # until now a sample that two workers share was counted twice
        furthest = 1.0
        tell(int(self.surviving.sum()) - others)

    def _split(self, assignments: list[Assignment]) -> list[Assignment]:
        """Tasks in flight as more tasks, where there are more workers than there were."""
        surviving = self.surviving
        for _, snapshot in assignments:
            surviving[snapshot.result.broken if snapshot else []] = False
        size, rows = self.executor.size // len(assignments), self.prepared.machine.step_rows
        pieces = [
            piece
            for task, snapshot in assignments
            if snapshot is not None
            for piece in split(task, snapshot, size, surviving, step_rows=rows)
        ]
        self.state.save_together(pieces)
        return pieces

    def _rebalanced(self, assignments: list[Assignment], results: list[TaskResult], steps: int) -> list[Assignment]:
        """The unfinished work of tasks that have stopped early, as tasks for all workers."""
        done = [(task, result) for (task, _), result in zip(assignments, results, strict=True)]
        stopped = [(task, result) for task, result in done if result.unfinished is not None]
        if not stopped:
            return []
        surviving = self.surviving
        for result in results:
            surviving[result.broken] = False
        size, rows = max(1, self.executor.size // len(stopped)), self.prepared.machine.step_rows
        pieces = [
            piece for task, result in stopped for piece in rebalance(task, result, size, surviving, step_rows=rows)
        ]
        # a piece relies on what the other tasks have found, so that after a kill all of it must be there
        finished: list[Assignment] = [
            (task, Snapshot(steps, [], result)) for task, result in done if result.unfinished is None
        ]
        self.state.save_together(pieces + finished)
        return pieces

    def _merge(self, results: list[TaskResult]) -> None:
        # several workers may have broken the same sample in different runs: the first in a fixed order counts
        broken = [(at, result, place) for result in results for place, at in enumerate(result.broken_at)]
        for _, result, place in sorted(broken, key=lambda found: found[0]):
            row = result.broken[place]
            if self.broken_by[row] < 0:
                self.points.replace(row, result.points[place])
                self.broken_by[row] = self.position
                self.adv_pred[row] = result.predicted[place]
        for result in results:
            self.open.tally.add(result.tally)
            self.open.judged += result.judged
            self.open.rejected += result.rejected
            self.open.busy_seconds += result.seconds
            self.open.last |= result.last
        if self.prepared.machine.rows_at_once is not None:
            # of all tasks together, those of no more samples than of one
            surviving = self.surviving
            rows = np.array([row for row in self.open.last if surviving[row]], dtype=np.int64)
            kept = rows[chosen(self.pool.keys[rows])].tolist()
            self.open.last = {row: self.open.last[row] for row in kept}

    def _close(self, step: Step, attack: attacks.Attack) -> None:
        """Write the record of a finished step."""
        after = int(self.surviving.sum())
        before = after + int((self.broken_by == self.position).sum())
        tally = self.open.tally
        self.records.append(
            StepRecord(
                name=step.name,
                attack=step.attack,
                parameters=dict(step.parameters),
                before=before,
                after=after,
                forward=int(tally.forward.sum()),
                backward=int(tally.backward.sum()),
                judge=self.open.judged,
                rejected=self.open.rejected,
                seconds=self.open.seconds,
                model_seconds=tally.model_seconds,
            )
        )
        self.flags += [flag.of_step(step.name) for flag in attack.flags]
        flat = int(tally.flat.sum())
        if flat:
            self.flags.append(kinds.ZERO_GRADIENT(samples=flat, of=before).of_step(step.name))
        mended = int(tally.mended.sum())
        if mended:
            self.flags.append(kinds.NAN_GRADIENT(samples=mended, of=before).of_step(step.name))
        rejected = checks.claims_rejected(self.open.rejected, self.open.judged)
        self.flags += [flag.of_step(step.name) for flag in rejected]
        unclaimed = self._unclaimed()
        if unclaimed:
            self.flags.append(kinds.SUCCESS_UNCLAIMED(samples=unclaimed, of=after).of_step(step.name))
        if attack.gradient_free and self.records[:-1] and before > after:
            self.flags.append(checks.gradient_free_gain(before, after, len(self.pool)).of_step(step.name))
        self.forward += tally.forward
        self.backward += tally.backward
        self.model_seconds += tally.model_seconds
        self.busy_seconds += self.open.busy_seconds
        self.position, self.next_run = self.position + 1, 0
        self.open = _OpenStep(len(self.pool))
        self._save(force=True)

    def _unclaimed(self) -> int:
        """How many of the survivors are misclassified at the last points that the attack visited, inside the ball."""
        rows = [row for row in self.open.last if self.surviving[row]]
        if not rows:
            return 0
        device = self.prepared.machine.device
        points = torch.stack([self.open.last[row] for row in rows]).to(device)
        x, y = self.pool.x[rows].to(device), self.pool.y[rows].to(device)
        lawful = self.threat.distance(points, x) <= self.threat.radius
        lawful &= (points.flatten(1).amin(1) >= 0) & (points.flatten(1).amax(1) <= 1)
        if not bool(lawful.any()):
            return 0
        logits = self.prepared.machine.judge.logits(points[lawful], "after the step")
        return int(((logits.argmax(dim=1) != y[lawful]) & torch.isfinite(logits).all(dim=1)).sum())

    def _content(self) -> dict[str, Any]:
        broken = torch.from_numpy(np.flatnonzero(self.broken_by >= 0))
        return {
            "logits": self.logits,
            "broken": broken,
            "points": self.points.saved(broken),
            "broken_by": torch.from_numpy(self.broken_by),
            "adv_pred": torch.from_numpy(self.adv_pred),
            "forward": torch.from_numpy(self.forward),
            "backward": torch.from_numpy(self.backward),
            "records": json.dumps([record.model_dump() for record in self.records]),
            "flags": json.dumps([flag.model_dump() for flag in self.flags]),
            "seconds": [self.busy_seconds, self.model_seconds],
            "position": [self.position, self.next_run],
            "backend": self.prepared.machine.choice[0],
            "micro_batch": self.prepared.machine.choice[1],
            "plain_from": self.plain_from,
            "open": {
                "forward": torch.from_numpy(self.open.tally.forward),
                "backward": torch.from_numpy(self.open.tally.backward),
                "flat": torch.from_numpy(self.open.tally.flat),
                "mended": torch.from_numpy(self.open.tally.mended),
                "finished": torch.from_numpy(self.open.finished),
                "numbers": [
                    self.open.tally.model_seconds,
                    self.open.seconds,
                    self.open.busy_seconds,
                    self.open.judged,
                    self.open.rejected,
                ],
            },
        }

    def _restore(self, saved: dict[str, Any]) -> None:
        self._take_logits(saved["logits"])
        self.points.restore(saved["broken"], saved["points"])
        self.broken_by = saved["broken_by"].numpy()
        self.adv_pred = saved["adv_pred"].numpy()
        self.forward, self.backward = saved["forward"].numpy(), saved["backward"].numpy()
        self.records = [StepRecord(**record) for record in json.loads(saved["records"])]
        self.flags = [Flag(**flag) for flag in json.loads(saved["flags"])]
        self.busy_seconds, self.model_seconds = saved["seconds"]
        self.position, self.next_run = saved["position"]
        if saved["plain_from"] and self.guard is not None:
            self._adopt_plain_passes(saved["plain_from"])
        opened = saved["open"]
        model_seconds, seconds, busy, judged, rejected = opened["numbers"]
        forward, backward = opened["forward"].numpy(), opened["backward"].numpy()
        tally = Tally(forward, backward, opened["flat"].numpy(), opened["mended"].numpy(), model_seconds)
        self.open = _OpenStep(len(self.pool), tally, seconds, busy, int(judged), int(rejected))
        self.open.finished = opened["finished"].numpy()
        self.saved_at = (self.position, self.next_run, int(self.open.finished.sum()))

    def finding(self) -> Finding:
        probabilities = checks.probabilities(self.logits)
        flags = unique([*self.flags, *([probabilities] if probabilities else [])])
        verdicts = Verdicts(
            index=self.pool.names,
            y=self.pool.y.numpy(),
            clean_pred=self.clean_pred,
            robust=self.surviving,
            broken_by=self.broken_by,
            adv_pred=self.adv_pred,
            forward=self.forward,
            backward=self.backward,
        )
        return Finding(
            verdicts=verdicts,
            points=self.points.found,
            steps=self.records,
            flags=flags,
            passes=self.prepared.notes,
            batch_size=self.prepared.machine.passes.limit,
            model_seconds=self.model_seconds,
            busy_seconds=self.busy_seconds,
            state=self.state,
            logits=self.logits,
        )


class _OpenStep:
    """What the current step has cost over the runs that are done."""

    def __init__(
        self,
        n: int,
        tally: Tally | None = None,
        seconds: float = 0.0,
        busy_seconds: float = 0.0,
        judged: int = 0,
        rejected: int = 0,
    ) -> None:
        self.tally = tally or Tally.empty(n)
        self.seconds, self.busy_seconds = seconds, busy_seconds
        self.judged, self.rejected = judged, rejected
        self.last: dict[int, Tensor] = {}
        # samples that have the runs of the current round behind them
        self.finished = np.zeros(n, dtype=np.bool_)


def _disjoint(parts: list[Part]) -> list[Part]:
    """The saved tasks that are furthest on, with no run of a sample in two of them.

    Overlapping ones come from runs with another number of workers.
    """
    chosen: list[Part] = []
    covered: set[tuple[int, int]] = set()
    for part in sorted(parts, key=lambda part: part.snapshot.iteration, reverse=True):
        if covered.isdisjoint(part.pairs):
            chosen.append(part)
            covered |= part.pairs
    return chosen
