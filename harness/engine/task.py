"""The engine: runs a suite over a pool of samples, spending passes only where they can matter.

All samples of the pool advance together through an attack's iterations. One that is broken leaves the
moment the judge has confirmed it; the survivors are packed into full batches. Where few are left, several
runs of an attack (restarts, targets) go through the model side by side as lanes of one batch. Nothing of
an attack changes for a survivor: same iterations, same budgets.

`execute` does one task (some runs of one step, for some samples) in this process; `harness.engine.executors` spreads
tasks over processes; `harness.engine.runner` takes a whole suite over a pool.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.attacks import Attack, Batch, Proposal, State
from harness.backends.passes import ChunkOracle, Passes, Tally
from harness.engine.judge import Judge
from harness.threat.rng import Draws

__all__ = ["Assignment", "Machine", "Outcome", "Pool", "Snapshot", "Task", "Tick", "deal", "execute"]

# seconds; a query of a small network takes less than telling of it
_TELL_EVERY = 0.02

Index = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Tick:
    """Progress: the step's name, its share done in [0, 1], samples still standing, samples in all."""

    step: str
    done: float
    standing: int
    total: int


@dataclass(frozen=True)
class Pool:
    """The samples of one evaluation, on the CPU.

    Attributes:
        x: ``[n, ...]`` in [0, 1], in the dtype of the attack. y: int64 ``[n]``.
        keys: uint64 ``[n]``, what the samples' randomness is keyed by.
        names: int64 ``[n]``, their positions in the data set.
    """

    x: Tensor
    y: Tensor
    keys: np.ndarray[Any, np.dtype[np.uint64]]
    names: Index

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Machine:
    """What passes are made with: the attacked model, the judge, and how many samples are packed.

    Attributes:
        batch_size: the most rows that go through together. room: how many cost least, row by row.
        bundle: with how many rows an attack takes a step at once; they go through in as many passes as that needs.
    """

    passes: Passes
    judge: Judge
    device: torch.device
    batch_size: int
    room: int
    bundle: int


@dataclass(frozen=True)
class Task:
    """Some of the runs ``first`` to ``first + lanes`` of one step, of some samples.

    Attributes:
        step: position of the step in the suite; name: its name.
        index, runs: int64 ``[m]`` each: rows of the pool, all still standing, and a run of each. A sample may occur
            several times, with another run each time.
        logits: ``[m, k]`` the plain model's output on the samples' clean images.
        until: the share of the runs, in (0, 1], after which the rest is handed back, to be dealt out anew.
    """

    step: int
    name: str
    attack: Attack
    seed: int
    first: int
    lanes: int
    index: Index
    runs: Index
    logits: Tensor
    until: float = 1.0

    @property
    def samples(self) -> int:
        """How many samples the task is about."""
        return len(np.unique(self.index))

    @cached_property
    def about(self) -> str:
        """A hash of which runs of which samples it is."""
        return hashlib.blake2b(self.index.tobytes() + self.runs.tobytes(), digest_size=8).hexdigest()


@dataclass
class Outcome:
    """What a task has found and spent so far; arrays of the whole pool's length.

    Attributes:
        broken: rows of the pool, in the order in which they fell; points, predicted: one per broken row.
        falls: after which iteration each fell (-1 for the first point), and in which run.
        rejected: proposals that the judge did not confirm. judged: its forward passes.
        rest: what the task has handed back: how many iterations its rows have behind them, and the rows.
    """

    tally: Tally
    broken: list[int] = field(default_factory=list)
    points: list[Tensor] = field(default_factory=list)
    predicted: list[int] = field(default_factory=list)
    falls: list[tuple[int, int]] = field(default_factory=list)
    rejected: int = 0
    judged: int = 0
    seconds: float = 0.0
    rest: tuple[int, list[dict[str, Any]]] | None = None


@dataclass(frozen=True)
class Snapshot:
    """A task in flight: enough to go on with it in another process."""

    iteration: int
    chunks: list[dict[str, Any]]
    outcome: Outcome


Assignment = tuple[Task, Snapshot | None]
"""A task, and where to go on with it."""


@dataclass
class _Chunk:
    """Rows that an attack takes its steps with; a sample stands in it once per lane.

    Attributes:
        oracle: what they see the model through, made when it is first needed.
    """

    index: Tensor
    batch: Batch
    state: State
    oracle: ChunkOracle | None = None

    def __len__(self) -> int:
        return len(self.index)

    def keep(self, mask: Tensor) -> _Chunk:
        """The rows where ``mask`` (bool, on the CPU) is true."""
        rows = mask.nonzero().squeeze(1).to(self.batch.x.device)
        state = {name: value.index_select(0, rows) for name, value in self.state.items()}
        return _Chunk(self.index[mask], self.batch.rows(rows), state)

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
) -> Outcome:
    """Run a task to its end, or to where it hands back the rest.

    Args:
        resume: go on from here instead of from the start.
        checkpoint: called after every iteration with a function that makes a snapshot; it decides whether
            to take one.
        progress: called now and then, and at the end, with the share done and the samples of this task standing.

    Raises:
        ModelError, AttackError: see `Passes` and `Judge`; what was found before stands in the snapshot.
    """
    run = _Run(task, pool, machine, resume.outcome if resume else Outcome(Tally.empty(len(pool))))
    began = time.perf_counter() - run.outcome.seconds
    chunks = run.restore(resume.chunks) if resume else run.start()
    first, told, samples = resume.iteration if resume else 0, 0.0, task.samples
    for i in range(first, task.attack.steps):
        if not chunks:
            break
        chunks = run.advance(chunks, i)
        run.outcome.seconds = time.perf_counter() - began
        over = not chunks or i + 1 == task.attack.steps
        if progress is not None and (over or run.outcome.seconds - told > _TELL_EVERY):
            told = run.outcome.seconds
            progress(run.share(chunks, i), samples - len(run.outcome.broken))
        if not over and task.until < 1 and run.share(chunks, i) >= task.until:
            run.outcome.rest = i + 1, run.rows(chunks)
            break
        if checkpoint is not None:
            checkpoint(lambda i=i, chunks=chunks: run.snapshot(i + 1, chunks))  # type: ignore[misc]
    run.settle()
    run.outcome.seconds = time.perf_counter() - began
    return run.outcome


def deal(
    task: Task, outcome: Outcome, size: int, standing: np.ndarray[Any, np.dtype[np.bool_]]
) -> list[tuple[Task, Snapshot]]:
    """What a task has handed back, as up to ``size`` tasks.

    The first goes on with what was found so far, and answers for all rows that are over.

    Args:
        standing: bool, of the whole pool; rows of samples that have fallen meanwhile are left out.
    """
    if outcome.rest is None:
        return []
    pairs = zip(task.index.tolist(), task.runs.tolist(), strict=True)
    where = {pair: position for position, pair in enumerate(pairs)}
    iteration, chunks = outcome.rest
    index, runs = (torch.cat([chunk[name] for chunk in chunks]) for name in ("index", "runs"))
    state = {name: torch.cat([chunk["state"][name] for chunk in chunks]) for name in chunks[0]["state"]}
    places = [where[pair] for pair in zip(index.tolist(), runs.tolist(), strict=True)]
    left = torch.from_numpy(standing)[index].nonzero().squeeze(1)
    over = sorted(set(where.values()) - {places[row] for row in left.tolist()})
    dealt = []
    for number, rows in enumerate(torch.tensor_split(left, size)):
        about = [places[row] for row in rows.tolist()]
        found = Outcome(Tally.empty(len(standing)))
        if number == 0:
            about, found = about + over, replace(outcome, rest=None)
        if about:
            part = {"index": index[rows], "runs": runs[rows], "state": {k: value[rows] for k, value in state.items()}}
            piece = replace(task, index=task.index[about], runs=task.runs[about], logits=task.logits[about], until=1.0)
            dealt.append((piece, Snapshot(iteration, [part] if len(rows) else [], found)))
    return dealt


class _Run:
    """The moving parts of one task: who has left, and what it has cost."""

    def __init__(self, task: Task, pool: Pool, machine: Machine, outcome: Outcome) -> None:
        self.task = task
        self.pool = pool
        self.machine = machine
        self.outcome = outcome
        self.oracles: list[ChunkOracle] = []
        self.standing = torch.zeros(len(pool), dtype=torch.bool)
        self.standing[torch.from_numpy(task.index)] = True
        self.standing[torch.tensor(outcome.broken, dtype=torch.int64)] = False

    def start(self) -> list[_Chunk]:
        """First points of every lane, those that are broken at once already gone."""
        size = self.machine.bundle
        chunks = []
        for run in np.unique(self.task.runs).tolist():
            whole = torch.from_numpy(np.flatnonzero(self.task.runs == run))
            for piece in torch.split(whole, size):
                part = piece[self.standing[torch.from_numpy(self.task.index)[piece]]]
                if len(part) == 0:
                    continue
                index, batch = self._batch(part, run)
                oracle = self._oracle(index)
                state, proposal = self.task.attack.start(batch, oracle, run)
                self._judge(index, batch, proposal, -1)
                chunks.append(_Chunk(index, batch, state, oracle))
        return self._pack(chunks)

    def advance(self, chunks: list[_Chunk], i: int) -> list[_Chunk]:
        """One iteration of every chunk, then the survivors packed."""
        after: list[_Chunk] = []
        fallen, left = len(self.outcome.broken), False
        for chunk in chunks:
            chunk.oracle = chunk.oracle or self._oracle(chunk.index)
            chunk.state, proposal = self.task.attack.step(chunk.batch, chunk.state, chunk.oracle, i)
            self._judge(chunk.index, chunk.batch, proposal, i)
            if proposal.over is None:
                after.append(chunk)
            else:
                left, stay = True, ~proposal.over.cpu()
                after += [chunk.keep(stay)] if bool(stay.any()) else []
        if not left and len(self.outcome.broken) == fallen:
            return after  # packed as before, as mostly
        after = self._pack(after)
        self._charge()
        self.oracles = [chunk.oracle for chunk in after if chunk.oracle is not None]
        return after

    def share(self, chunks: list[_Chunk], i: int) -> float:
        """The share of the task that is done after iteration ``i``."""
        done = [self.task.attack.done(chunk.state) for chunk in chunks]
        shares = [share for share in done if share is not None]
        if shares:
            return float(torch.cat(shares).mean())
        return (i + 1) / self.task.attack.steps if chunks else 1.0

    def snapshot(self, iteration: int, chunks: list[_Chunk]) -> Snapshot:
        self.settle()
        return Snapshot(iteration, self.rows(chunks), self.outcome)

    def rows(self, chunks: list[_Chunk]) -> list[dict[str, Any]]:
        """What `restore` takes."""
        return [
            {
                "index": chunk.index,
                "runs": torch.from_numpy(np.broadcast_to(chunk.batch.draws.runs, len(chunk)).astype(np.int64)),
                "state": {name: value.cpu() for name, value in chunk.state.items()},
            }
            for chunk in chunks
        ]

    def restore(self, rows: list[dict[str, Any]]) -> list[_Chunk]:
        where = {int(row): position for position, row in enumerate(self.task.index)}
        chunks = []
        for saved in rows:
            part = torch.tensor([where[int(row)] for row in saved["index"]], dtype=torch.int64)
            index, batch = self._batch(part, 0)
            batch = replace(batch, draws=replace(batch.draws, runs=saved["runs"].numpy()))
            state = {name: value.to(self.machine.device) for name, value in saved["state"].items()}
            chunks.append(_Chunk(index, batch, state))
        return chunks

    def settle(self) -> None:
        """Bring the tally up to date."""
        self._charge()
        self.outcome.tally.model_seconds += self.machine.passes.drain() + self.machine.judge.drain()

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
        room = min(self.machine.room, passes.limit)
        tally, device = self.outcome.tally, self.machine.device
        oracle = ChunkOracle(passes, index, tally, self.task.name, names, room=room, device=device)
        self.oracles.append(oracle)
        return oracle

    def _judge(self, index: Tensor, batch: Batch, proposal: Proposal, i: int) -> None:
        claimed = proposal.claimed.nonzero()
        if len(claimed) == 0:
            return
        claimed = claimed.squeeze(1)
        owners = index[claimed.cpu()]
        # a sample may be claimed by several lanes at once, or have fallen in another chunk just now
        fresh = self.standing[owners] & _first_of_each(owners)
        claimed, owners = claimed[fresh.to(claimed.device)], owners[fresh]
        if len(claimed) == 0:
            return
        names = self.pool.names[owners.numpy()]
        x = batch.x.index_select(0, claimed)
        points = self.machine.judge.threat.without_rounding(proposal.points.index_select(0, claimed), x)
        confirmed, predicted = self.machine.judge.confirm(points, x, batch.y[claimed], step=self.task.name, names=names)
        self.outcome.judged += len(claimed)
        self.outcome.rejected += int((~confirmed).sum())
        won = confirmed.cpu()
        self.outcome.broken += owners[won].tolist()
        # rows of their own, as a view would keep all of its batch in memory and in messages
        self.outcome.points += [row.clone() for row in points[confirmed].cpu()]
        self.outcome.predicted += predicted[confirmed].tolist()
        runs = np.broadcast_to(batch.draws.runs, len(index))[claimed[confirmed].cpu().numpy()]
        self.outcome.falls += [(i, int(run)) for run in runs]
        self.standing[owners[won]] = False

    def _pack(self, chunks: list[_Chunk]) -> list[_Chunk]:
        kept = []
        for chunk in chunks:
            mask = self.standing[chunk.index]
            if bool(mask.all()):
                kept.append(chunk)
            elif bool(mask.any()):
                kept.append(chunk.keep(mask))
        size = self.machine.bundle
        rows = sum(map(len, kept))
        # joining copies every state, so it is done only where it saves a step per iteration
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
