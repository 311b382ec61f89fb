"""One task: some runs of one attack step, for some samples, in this process.

All samples of a task advance together through the attack's iterations. One that is broken leaves the moment the judge
has confirmed it; the survivors are packed into full batches. Where few are left, several runs of an attack (restarts,
target classes) go through the model side by side in one batch. Nothing changes for a survivor: the same iterations,
the same budgets.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.attacks import Batch, Proposal, State
from harness.backends.equivalence import chosen
from harness.backends.passes import ChunkOracle, Tally
from harness.engine.types import Machine, Pool, Snapshot, Task, TaskResult
from harness.threat.rng import Draws

__all__ = ["execute"]

# seconds between reports; an iteration of a small network takes less time than a report
_REPORT_EVERY = 0.02


@dataclass
class _Chunk:
    """Rows that an attack takes its steps with; a sample is in it once per parallel run.

    Attributes:
        next: the iteration that they need next; -1 where they have no first points yet.
        oracle: their access to the model, made when it is first needed.
    """

    index: Tensor
    batch: Batch
    state: State
    next: int = -1
    oracle: ChunkOracle | None = None

    def __len__(self) -> int:
        return len(self.index)

    def keep(self, mask: Tensor) -> _Chunk:
        """The rows where ``mask`` (bool, on the CPU) is true."""
        rows = mask.nonzero().squeeze(1).to(self.batch.x.device)
        state = {name: value.index_select(0, rows) for name, value in self.state.items()}
        return _Chunk(self.index[mask], self.batch.rows(rows), state, self.next)

    @staticmethod
    def join(chunks: list[_Chunk]) -> _Chunk:
        """All rows of several chunks (of the same iteration), in order."""
        if len(chunks) == 1:
            return chunks[0]
        batches = [chunk.batch for chunk in chunks]
        return _Chunk(
            torch.cat([chunk.index for chunk in chunks]),
            Batch(
                torch.cat([batch.x for batch in batches]),
                torch.cat([batch.y for batch in batches]),
                torch.cat([batch.logits for batch in batches]),
                Draws.join([batch.draws for batch in batches]),
            ),
            {name: torch.cat([chunk.state[name] for chunk in chunks]) for name in chunks[0].state},
            chunks[0].next,
        )

    def split(self, size: int) -> list[_Chunk]:
        """The rows in chunks of at most ``size``."""
        if len(self) <= size:
            return [self]
        rows = torch.arange(len(self))
        return [self.keep((rows >= begin) & (rows < begin + size)) for begin in range(0, len(self), size)]


def execute(
    task: Task,
    pool: Pool,
    machine: Machine,
    *,
    resume: Snapshot | None = None,
    checkpoint: Callable[[Callable[[], Snapshot]], None] | None = None,
    progress: Callable[[float, int], None] | None = None,
) -> TaskResult:
    """Run a task to its end, or to ``task.stop_at``.

    Args:
        resume: continue from here instead of from the start.
        checkpoint: called whenever a chunk has taken a step, with a function that makes a snapshot; it decides
            whether to take one.
        progress: called now and then, and at the end, with the share done and the number of surviving samples.

    Raises:
        ModelError, AttackError: see `Passes` and `Judge`; what was found before is in the last snapshot.
    """
    run = _TaskRun(task, pool, machine, resume.result if resume else TaskResult(Tally.empty(len(pool))))
    began = time.perf_counter() - run.result.seconds
    chunks = run.restore(resume.chunks) if resume else run.unstarted()
    reported, samples, share = 0.0, task.samples, 0.0

    def report(*, now: bool = False) -> None:
        nonlocal reported
        run.result.seconds = time.perf_counter() - began
        if progress is not None and (now or run.result.seconds - reported > _REPORT_EVERY):
            reported = run.result.seconds
            progress(share, samples - len(run.result.broken))

    for i in range(resume.iteration if resume else -1, task.attack.steps):
        if not chunks:
            break

        def stepped(chunks: list[_Chunk], i: int = i) -> None:
            report()
            if checkpoint is not None:
                checkpoint(lambda: run.snapshot(i, chunks))

        chunks = run.advance(chunks, i, stepped)
        finished = not chunks or i + 1 == task.attack.steps
        share = run.share(chunks, i)
        report(now=finished)
        if not finished and task.stop_at < 1 and share >= task.stop_at:
            run.result.unfinished = i + 1, run.saved(chunks)
            break
    run.settle()
    run.note_last_points()
    run.result.seconds = time.perf_counter() - began
    return run.result


class _TaskRun:
    """The state of one task: which samples survive, and what was spent."""

    def __init__(self, task: Task, pool: Pool, machine: Machine, result: TaskResult) -> None:
        self.task = task
        self.pool = pool
        self.machine = machine
        self.result = result
        self.oracles: list[ChunkOracle] = []
        self.latest: list[ChunkOracle] = []
        # broken samples when the chunks were packed last; what was saved may not be packed
        self.packed = -1
        self.surviving = torch.zeros(len(pool), dtype=torch.bool)
        self.surviving[torch.from_numpy(task.index)] = True
        self.surviving[torch.tensor(result.broken, dtype=torch.int64)] = False

    def unstarted(self) -> list[_Chunk]:
        """The rows of every run in chunks, without first points."""
        chunks = []
        for run in np.unique(self.task.runs).tolist():
            whole = torch.from_numpy(np.flatnonzero(self.task.runs == run))
            chunks += [_Chunk(*self._batch(part, run), {}) for part in torch.split(whole, self.machine.step_rows)]
        return chunks

    def advance(self, chunks: list[_Chunk], i: int, stepped: Callable[[list[_Chunk]], None]) -> list[_Chunk]:
        """One iteration of every chunk (the first points for -1); then the survivors are packed.

        Args:
            stepped: called after every chunk with all chunks, of which some have the iteration behind them. Saved
                chunks may have it behind them from the beginning.
        """
        after: list[_Chunk] = []
        self.latest = []
        left = False
        for position, chunk in enumerate(chunks):
            if chunk.next > i:
                after.append(chunk)
                continue
            stepping = self._start(chunk) if i < 0 else self._step(chunk, i)
            left = left or len(stepping) != len(chunk)
            after += [stepping] if len(stepping) else []
            stepped([*after, *chunks[position + 1 :]])
        if not left and len(self.result.broken) == self.packed:
            return after  # packed as before, which is the usual case
        after = self._pack(after)
        self.packed = len(self.result.broken)
        self._charge()
        self.oracles = [chunk.oracle for chunk in after if chunk.oracle is not None]
        return after

    def _start(self, chunk: _Chunk) -> _Chunk:
        """The first points of a chunk; samples that other chunks have broken meanwhile need none."""
        needed = self.surviving[chunk.index]
        chunk = chunk if bool(needed.all()) else chunk.keep(needed)
        if len(chunk):
            chunk.oracle = self._oracle(chunk.index)
            run = int(np.broadcast_to(chunk.batch.draws.runs, len(chunk))[0])
            chunk.state, proposal = self.task.attack.start(chunk.batch, chunk.oracle, run)
            self._judge(chunk.index, chunk.batch, proposal, -1)
        chunk.next = 0
        return chunk

    def _step(self, chunk: _Chunk, i: int) -> _Chunk:
        """One iteration of a chunk; rows for which the attack is over leave it."""
        chunk.oracle = chunk.oracle or self._oracle(chunk.index)
        self.latest.append(chunk.oracle)
        chunk.state, proposal = self.task.attack.step(chunk.batch, chunk.state, chunk.oracle, i)
        chunk.next = i + 1
        self._judge(chunk.index, chunk.batch, proposal, i)
        if proposal.over is None:
            return chunk
        over = proposal.over.cpu()
        if bool(over.any()):
            self._note_points([chunk.oracle], set(chunk.index[over].tolist()))
        return chunk.keep(~over)

    def share(self, chunks: list[_Chunk], i: int) -> float:
        """The share of the task that is done after iteration ``i``."""
        done = [self.task.attack.done(chunk.state) for chunk in chunks]
        shares = [share for share in done if share is not None]
        if shares:
            return float(torch.cat(shares).mean())
        return (i + 1) / self.task.attack.steps if chunks else 1.0

    def snapshot(self, iteration: int, chunks: list[_Chunk]) -> Snapshot:
        self.settle()
        return Snapshot(iteration, self.saved(chunks), self.result)

    def saved(self, chunks: list[_Chunk]) -> list[dict[str, Any]]:
        """The chunks as plain data; the inverse of `restore`."""
        return [
            {
                "index": chunk.index,
                "runs": torch.from_numpy(np.broadcast_to(chunk.batch.draws.runs, len(chunk)).astype(np.int64)),
                "state": {name: value.cpu() for name, value in chunk.state.items()},
                "next": chunk.next,
            }
            for chunk in chunks
        ]

    def restore(self, saved_chunks: list[dict[str, Any]]) -> list[_Chunk]:
        where = {int(row): position for position, row in enumerate(self.task.index)}
        chunks = []
        for saved in saved_chunks:
            part = torch.tensor([where[int(row)] for row in saved["index"]], dtype=torch.int64)
            index, batch = self._batch(part, 0)
            batch = replace(batch, draws=replace(batch.draws, runs=saved["runs"].numpy()))
            state = {name: value.to(self.machine.device) for name, value in saved["state"].items()}
            chunks.append(_Chunk(index, batch, state, saved["next"]))
        return chunks

    def settle(self) -> None:
        """Bring the tally up to date."""
        self._charge()
        self.result.tally.model_seconds += self.machine.passes.drain() + self.machine.judge.drain()

    def note_last_points(self) -> None:
        """Keep the last points of those survivors that are compared with the plain model after the step."""
        self._note_points(self.latest)

    def _note_points(self, oracles: list[ChunkOracle], among: set[int] | None = None) -> None:
        """Likewise of the last passes of ``oracles``; only of some rows of the pool, if ``among`` is given."""
        survivors = np.flatnonzero(self.surviving.numpy())
        wanted = set(survivors[chosen(self.pool.keys[survivors])].tolist())
        for oracle in oracles:
            self.result.last |= oracle.last_points(wanted if among is None else wanted & among)

    def _charge(self) -> None:
        for oracle in self.oracles:
            oracle.settle()

    def _batch(self, part: Tensor, run: int) -> tuple[Tensor, Batch]:
        index = torch.from_numpy(self.task.index)[part]
        draws = Draws(self.pool.keys[index.numpy()], self.task.seed, self.task.name, run)
        device = self.machine.device
        x, y = self.pool.x[index].to(device), self.pool.y[index].to(device)
        return index, Batch(x, y, self.task.logits[part].to(device), draws)

    def _oracle(self, index: Tensor) -> ChunkOracle:
        passes, names = self.machine.passes, self.pool.names
        micro_batch = min(self.machine.micro_batch, passes.limit)
        tally, device = self.result.tally, self.machine.device
        oracle = ChunkOracle(passes, index, tally, self.task.name, names, micro_batch=micro_batch, device=device)
        self.oracles.append(oracle)
        return oracle

    def _judge(self, index: Tensor, batch: Batch, proposal: Proposal, i: int) -> None:
        claimed = proposal.claimed.nonzero()
        if len(claimed) == 0:
            return
        claimed = claimed.squeeze(1)
        owners = index[claimed.cpu()]
        # a sample may be claimed by several parallel runs at once, or have been broken in another chunk just now
        fresh = self.surviving[owners] & _first_of_each(owners)
        claimed, owners = claimed[fresh.to(claimed.device)], owners[fresh]
        if len(claimed) == 0:
            return
        names = self.pool.names[owners.numpy()]
        x = batch.x.index_select(0, claimed)
        points = self.machine.judge.threat.without_rounding(proposal.points.index_select(0, claimed), x)
        confirmed, predicted = self.machine.judge.confirm(points, x, batch.y[claimed], step=self.task.name, names=names)
        self.result.judged += len(claimed)
        self.result.rejected += int((~confirmed).sum())
        won = confirmed.cpu()
        self.result.broken += owners[won].tolist()
        # copies, because a view would keep its whole batch in memory and in messages
        self.result.points += [row.clone() for row in points[confirmed].cpu()]
        self.result.predicted += predicted[confirmed].tolist()
        runs = np.broadcast_to(batch.draws.runs, len(index))[claimed[confirmed].cpu().numpy()]
        self.result.broken_at += [(i, int(run)) for run in runs]
        self.surviving[owners[won]] = False

    def _pack(self, chunks: list[_Chunk]) -> list[_Chunk]:
        kept = []
        for chunk in chunks:
            mask = self.surviving[chunk.index]
            if bool(mask.all()):
                kept.append(chunk)
            elif bool(mask.any()):
                kept.append(chunk.keep(mask))
        size = self.machine.step_rows
        rows = sum(map(len, kept))
        # joining copies every state, so it is done only where it saves a chunk
        if len(kept) > -(-rows // size):
            return _Chunk.join(kept).split(size)
        return kept


def _first_of_each(owners: Tensor) -> Tensor:
    """True at the first occurrence of each value."""
    seen: set[int] = set()
    first = []
    for owner in owners.tolist():
        first.append(owner not in seen)
        seen.add(owner)
    return torch.tensor(first, dtype=torch.bool)
