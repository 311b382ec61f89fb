"""The work of an evaluation that runs in many places: a queue of shards, and what becomes of each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import evaluation
from harness.engine.types import AttackProgress
from harness.errors import HarnessError, ResultError, WorkerLost
from harness.evaluation import Plan
from harness.results import parts
from harness.results.parts import Part, Shard

__all__ = ["MOST_LOSSES", "Queue", "Task"]

MOST_LOSSES = 5
"""A shard that was lost so often is at fault itself."""


@dataclass(frozen=True, eq=False)
class Task:
    """The unit of work: one shard of one evaluation. Its part file says that it is done.

    Attributes:
        plan: of the whole evaluation.
    """

    plan: Plan
    shard: Shard

    def path(self, root: Path) -> Path:
        """Its part file under the folder of the results."""
        return parts.path_of(root, self.plan.evaluation_id, self.shard)

    def __str__(self) -> str:
        return f"{self.plan.target.name}, {self.plan.suite.name}, shard {self.shard}"


class Queue:
    """The tasks of some evaluations. An executor takes them with `next` and says what becomes of them.

    Args:
        tasks: those to be run. finished: parts that are there already, for the progress.
        root: the folder of the results.
        progress: hears how far all evaluations together are. complete: hears of an evaluation whose last task is done.

    Attributes:
        where: in words, who has the tasks that were handed over. jobs: the numbers under which they are known there.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        root: Path,
        *,
        finished: Sequence[Part] = (),
        progress: Callable[[AttackProgress], None] | None = None,
        complete: Callable[[Plan], None] = lambda plan: None,
    ) -> None:
        self.root = root
        self.where = "elsewhere"
        self.jobs: tuple[int, ...] = ()
        self.failures: dict[Plan, HarnessError] = {}
        self._waiting = list(tasks)
        self._running: dict[Task, AttackProgress | None] = {}
        self._losses: dict[Task, int] = {}
        self._progress = progress
        self._complete = complete
        self._total = len(tasks) + len(finished)
        self._finished = [_counted(part) for part in finished]

    @property
    def waiting(self) -> int:
        """Tasks that nobody has taken."""
        return len(self._waiting)

    def next(self) -> Task | None:
        """The task to be started now; None if none is waiting."""
        if not self._waiting:
            return None
        task = self._waiting.pop(0)
        self._running[task] = None
        return task

    def is_wanted(self, task: Task) -> bool:
        """Whether somebody still waits for a task that was taken: its evaluation has not failed."""
        return task in self._running

    def is_unfinished(self, plan: Plan) -> bool:
        """Whether a task of an evaluation is waiting, or was taken and is neither done nor failed."""
        return any(task.plan is plan for task in (*self._waiting, *self._running))

    def further(self, task: Task, tick: AttackProgress) -> None:
        """A task is so far."""
        if task in self._running:
            self._running[task] = tick
            self._tell()

    def done(self, task: Task) -> None:
        """A task's part is in its place; one that is not, or is damaged or another's, fails the task."""
        try:
            part = evaluation.part_of(task.plan, task.path(self.root))
        except ResultError as error:
            self.failed(task, error)
            return
        if self._running.pop(task, _GONE) is not _GONE:
            self._finished.append(_counted(part))
            self._tell()
            if not self.is_unfinished(task.plan):
                self._complete(task.plan)

    def lost(self, task: Task, reason: str) -> None:
        """Whoever ran a task is gone: it is the next to be started, unless that has happened too often."""
        if self._running.pop(task, _GONE) is _GONE:
            return
        self._losses[task] = self._losses.get(task, 0) + 1
        if self._losses[task] >= MOST_LOSSES:
            self._fail(task.plan, WorkerLost(f"{task} was lost {MOST_LOSSES} times, last because {reason}"))
            return
        warnings.warn(f"{task} was lost, because {reason}: it is run again", stacklevel=2)
        self._waiting.insert(0, task)

    def failed(self, task: Task, error: HarnessError) -> None:
        """A task cannot be done, and so its evaluation: what waits of that is dropped."""
        if task in self._running:
            self._fail(task.plan, error)

    def _fail(self, plan: Plan, error: HarnessError) -> None:
        self.failures.setdefault(plan, error)
        self._waiting = [task for task in self._waiting if task.plan is not plan]
        self._running = {task: tick for task, tick in self._running.items() if task.plan is not plan}

    def _tell(self) -> None:
        if self._progress is None:
            return
        ticks = [tick for tick in self._running.values() if tick is not None]
        surviving = sum(robust for robust, _ in self._finished) + sum(tick.surviving for tick in ticks)
        total = sum(correct for _, correct in self._finished) + sum(tick.total for tick in ticks)
        step = f"{len(self._finished)} of {self._total} shards done"
        self._progress(AttackProgress(step, len(self._finished) / self._total, surviving, total))


_GONE = object()


def _counted(part: Part) -> tuple[int, int]:
    """Samples of a part that survive, and that are classified correctly without attack."""
    verdicts = part.verdicts
    return int(verdicts.robust.sum()), int((verdicts.clean_pred == verdicts.y).sum())
