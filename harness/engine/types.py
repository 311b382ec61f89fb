"""The data that the engine passes between runner, executors and tasks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.attacks import Attack
from harness.backends.passes import Passes, Tally
from harness.engine.judge import Judge
from harness.util.images import Images

__all__ = ["Assignment", "AttackProgress", "Index", "Machine", "Pool", "Snapshot", "Task", "TaskResult"]

Index = np.ndarray[Any, np.dtype[np.int64]]
"""Rows of a pool, or numbers of runs: int64 ``[m]``."""


@dataclass(frozen=True)
class AttackProgress:
    """How far an evaluation is.

    Attributes:
        step: name of the current step. done: the share of it that is done, in [0, 1].
        surviving: samples not yet broken. total: samples classified correctly without attack.
    """

    step: str
    done: float
    surviving: int
    total: int


@dataclass(frozen=True)
class Pool:
    """The samples of one evaluation, on the CPU.

    Attributes:
        x: ``[n, ...]`` in [0, 1], in the dtype of the attack; read from a file where they are many. y: int64 ``[n]``.
        keys: uint64 ``[n]``, what the samples' randomness is keyed by.
        names: int64 ``[n]``, their positions in the data set.
    """

    x: Images
    y: Tensor
    keys: np.ndarray[Any, np.dtype[np.uint64]]
    names: Index

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Machine:
    """What passes are made with: the attacked model, the judge, and how many samples are packed.

    Attributes:
        batch_size: the most rows in one pass. micro_batch: the number of rows at which a row costs least.
        step_rows: the number of rows that an attack takes one step with; they need one or several passes.
        rows_at_once: the most rows of a task, so that the states of an attack fit into memory; None: any number.
        choice: the backend that makes the passes, and its micro-batch.
    """

    passes: Passes
    judge: Judge
    device: torch.device
    batch_size: int
    micro_batch: int
    step_rows: int
    rows_at_once: int | None
    choice: tuple[str, int]


@dataclass(frozen=True)
class Task:
    """A unit of work: some of the runs (restarts, target classes) of one attack step, for some samples.

    All tasks of a round cover the runs ``first_run`` to ``first_run + parallel_runs`` of the step.

    Attributes:
        step: position of the step in the suite; name: its name.
        index, runs: int64 ``[m]`` each: rows of the pool, none of them broken yet, and a run of each. A sample may
            occur several times, with another run each time.
        logits: ``[m, k]`` the plain model's output on the samples' clean images.
        stop_at: the share of the work, in (0, 1], after which the task returns what is left, to be rebalanced.
    """

    step: int
    name: str
    attack: Attack
    seed: int
    first_run: int
    parallel_runs: int
    index: Index
    runs: Index
    logits: Tensor
    stop_at: float = 1.0

    @property
    def samples(self) -> int:
        """The number of different samples."""
        return len(np.unique(self.index))

    @cached_property
    def digest(self) -> str:
        """A hash of its samples and runs."""
        return hashlib.blake2b(self.index.tobytes() + self.runs.tobytes(), digest_size=8).hexdigest()


@dataclass
class TaskResult:
    """What a task has found and spent so far.

    Attributes:
        tally: passes, over the whole pool.
        broken: rows of the pool, in the order in which they were broken; points, predicted: one per broken row.
        broken_at: for each, the iteration (-1 for the first point) and the run that broke it.
        rejected: proposals that the judge did not confirm. judged: its forward passes.
        unfinished: what the task returns to be rebalanced: iterations done, and the saved chunks.
        last: for some of the surviving samples, by their row of the pool, the point of the attack's last pass.
    """

    tally: Tally
    broken: list[int] = field(default_factory=list)
    points: list[Tensor] = field(default_factory=list)
    predicted: list[int] = field(default_factory=list)
    broken_at: list[tuple[int, int]] = field(default_factory=list)
    rejected: int = 0
    judged: int = 0
    seconds: float = 0.0
    unfinished: tuple[int, list[dict[str, Any]]] | None = None
    last: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """A task in flight: enough to continue it in another process.

    Attributes:
        iteration: the one at work, -1 before all first points are there; some chunks may have it behind them.
        chunks: the saved chunks. result: what was found before.
    """

    iteration: int
    chunks: list[dict[str, Any]]
    result: TaskResult


Assignment = tuple[Task, Snapshot | None]
"""A task, and where to continue it."""
