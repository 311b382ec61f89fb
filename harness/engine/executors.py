"""Who runs the tasks: this process, or several worker processes.

On a CPU small models are fastest with one thread a worker and as many workers as cores; two threads in one process can
be far slower than one when the machine is busy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.engine.snapshots import CleanLogits, State
from harness.engine.task import execute
from harness.engine.types import Assignment, Index, Machine, Pool, TaskResult
from harness.errors import InvalidInput
from harness.util import pool as processes
from harness.util.pool import Progress, WorkerPool, can_fork
from harness.util.torch_state import backward_runs_in_a_fork

__all__ = ["Executor", "InProcess", "ProcessPool", "count", "executor", "positive"]

Report = Callable[[float, int], None]
"""Hears the share done and the number of samples that survive."""


class Executor(Protocol):
    """Runs tasks over one pool of samples.

    Attributes:
        size: how many tasks run at once.
    """

    size: int

    def logits(self, index: Index) -> tuple[Tensor, float]:
        """The plain model's output ``[m, k]`` on clean images, and the seconds spent in the model."""
        ...

    def run(self, assignments: Sequence[Assignment], report: Report) -> list[TaskResult]:
        """Run tasks to their end, or to where they return what is left.

        Args:
            report: told of all tasks together; a sample of several tasks counts once for each of them.
        """
        ...

    def close(self) -> None:
        """End the workers."""
        ...


def count(workers: int | str, device: torch.device) -> int:
    """How many processes ``workers`` means ("auto": the cores that this process may use).

    One where torch has begun threads in this process that a forked one lacks, as torch.compile does.

    Raises:
        InvalidInput: not "auto" or a positive number, or several on a GPU or where processes cannot be forked.
    """
    # where there is a GPU, torch's autograd keeps threads that do not live on in a forked process
    able = device.type == "cpu" and can_fork() and not torch.cuda.is_available()
    if workers == "auto":
        cores = len(os.sched_getaffinity(0)) if able and hasattr(os, "sched_getaffinity") else 1
        return cores if cores == 1 or backward_runs_in_a_fork() else 1
    workers = positive(workers)
    if workers > 1 and not able:
        raise InvalidInput(f"{workers} workers need a CPU device and a system without a GPU that can fork; use 1")
    return workers if workers == 1 or backward_runs_in_a_fork() else 1


def positive(workers: int | str) -> int:
    """A number of workers that was given as one.

    Raises:
        InvalidInput: it is no positive number.
    """
    if not isinstance(workers, int) or workers < 1:
        raise InvalidInput(f"workers must be 'auto' or a positive number, got {workers!r}")
    return workers


def executor(size: int, pool: Pool, machine: Machine, state: State) -> Executor:
    """An executor of ``size`` tasks at once."""
    alone = InProcess(pool, machine, state)
    return alone if size == 1 else ProcessPool(size, alone)


@dataclass
class InProcess:
    """This process runs all tasks, one after the other."""

    pool: Pool
    machine: Machine
    state: State
    size: int = 1

    def logits(self, index: Index) -> tuple[Tensor, float]:
        judge = self.machine.judge
        judge.drain()
        # one block, as small ones between those of the batches would keep their memory from being used again
        found, done = torch.empty(0), 0
        seconds, size = 0.0, self.machine.batch_size

        def known() -> CleanLogits:
            nonlocal seconds
            seconds += judge.drain()
            return CleanLogits(index[:done], found[:done], seconds)

        for rows in torch.split(torch.from_numpy(index), size):
            logits = judge.logits(self.pool.x[rows].to(self.machine.device), "on the clean images")
            if done == 0:
                found = torch.empty((len(index), logits.shape[1]), dtype=logits.dtype)
            found[done : done + len(rows)] = logits
            done += len(rows)
            self.state.save_clean(known)
        all_of_them = known()
        return all_of_them.logits, all_of_them.seconds

    def run(self, assignments: Sequence[Assignment], report: Report) -> list[TaskResult]:
        results = []
        left = sum(task.samples for task, _ in assignments)
        for position, assignment in enumerate(assignments):
            others = left - assignment[0].samples

            def told(done: float, surviving: int, position: int = position, others: int = others) -> None:
                report((position + done) / len(assignments), others + surviving)

            results.append(self.run_one(assignment, told))
            left -= len(results[-1].broken)
        return results

    def run_one(self, assignment: Assignment, report: Report) -> TaskResult:
        """Run one task."""
        task, snapshot = assignment
        return execute(
            task,
            self.pool,
            self.machine,
            resume=snapshot,
            checkpoint=lambda shot: self.state.save_part(task, shot),
            progress=report,
        )

    def close(self) -> None:
        """There is nothing to end."""


class ProcessPool:
    """Forked worker processes, one thread each."""

    def __init__(self, size: int, alone: InProcess) -> None:
        def serve(request: Index | Assignment, report: processes.Report) -> Any:
            torch.set_num_threads(1)
            return alone.run_one(request, report) if isinstance(request, tuple) else alone.logits(request)

        self.size = size
        self.workers = WorkerPool(size, serve)

    def logits(self, index: Index) -> tuple[Tensor, float]:
        shares = [index[slot :: self.size] for slot in range(min(self.size, len(index)))]
        answers = self.workers.run(shares, lambda progress: None)
        logits = torch.empty((len(index), answers[0][0].shape[1]), dtype=answers[0][0].dtype)
        for slot, (part, _) in enumerate(answers):
            logits[slot :: self.size] = part
        return logits, sum(seconds for _, seconds in answers)

    def run(self, assignments: Sequence[Assignment], report: Report) -> list[TaskResult]:
        done = [0.0] * len(assignments)
        surviving = [task.samples for task, _ in assignments]

        def heard(progress: Progress) -> None:
            done[progress.key], surviving[progress.key] = progress.share, progress.detail
            report(sum(done) / len(done), sum(surviving))

        return self.workers.run(assignments, heard)

    def close(self) -> None:
        self.workers.close()
