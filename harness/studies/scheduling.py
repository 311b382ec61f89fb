"""Jobs that need each other, in the order of their needs and side by side where that is possible.

Every job gets a forked process of its own with one thread: that is the fastest way through many small networks, a job
cannot disturb another, and a killed one loses no more than itself. Small networks leave a GPU idle most of the time,
so that several jobs may share one. Where no process can be forked, jobs run one after the other in this one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch

from harness.errors import HarnessError, system_error
from harness.util.pool import Failure, Progress, Report, WorkerPool, can_fork
from harness.util.torch_state import backward_runs_in_a_fork

__all__ = ["Event", "Job", "JobProgress", "JobResult", "can_isolate", "schedule"]


@dataclass(frozen=True)
class Job:
    """Something to be done.

    Attributes:
        name: unlike any other's.
        kind: jobs of one kind take about equally long.
        cost: against jobs of other kinds, in any unit.
        needs: names of the jobs that come first; names that are no jobs count as done.
        run: does it and returns what the caller should know of it, in plain values. It reports the share that is done
            and a few words on where it is.
    """

    name: str
    kind: str
    needs: tuple[str, ...]
    run: Callable[[Report], Any] = field(repr=False)
    cost: float = 1.0


@dataclass(frozen=True)
class JobResult:
    """How a job ended.

    Attributes:
        status: "skipped" if one that it needs failed.
        value: what `Job.run` returned. error: one sentence, where it failed or was skipped.
        seconds: from start to end. cpu_seconds: of the processor's time.
    """

    status: Literal["done", "failed", "skipped"]
    value: Any = None
    error: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Event:
    """What happened to a job: it started, came further, or ended (``result``).

    Attributes:
        finished, total: jobs, all in all.
        left: seconds until all is done, as far as that can be told.
    """

    job: Job
    share: float
    words: str
    result: JobResult | None
    finished: int
    total: int
    left: float | None


JobProgress = Callable[[Event], None]


def can_isolate(device: torch.device) -> bool:
    """Whether jobs can have processes of their own: where forked ones can make backward passes and use the device."""
    usable = device.type == "cpu" or not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return usable and can_fork() and backward_runs_in_a_fork()


def schedule(jobs: Sequence[Job], *, workers: int, isolated: bool, progress: JobProgress) -> dict[str, JobResult]:
    """Do all jobs, each as soon as what it needs is done, in the order given otherwise.

    Where a job fails, those that need it are skipped; all others are done.

    Args:
        workers: how many at once. isolated: each in a process of its own.

    Raises:
        KeyboardInterrupt: after the processes of the jobs were ended.
    """
    board = _Board(list(jobs), progress, workers if isolated else 1)
    if isolated:
        _in_processes(board)
    else:
        while job := board.next():
            board.start(job)
            board.end(job, _perform(job, partial(board.further, job)))
    return board.results


def _in_processes(board: _Board) -> None:
    def serve(position: int, report: Report) -> JobResult:
        torch.set_num_threads(1)
        return _perform(board.jobs[position], report)

    with WorkerPool(board.workers, serve, fresh=True) as pool:
        while board.waiting or board.active:
            while pool.free and (job := board.next()):
                pool.submit(board.jobs.index(job), board.jobs.index(job))
                board.start(job)
            for message in pool.wait():
                job = board.jobs[message.key]
                if isinstance(message, Progress):
                    board.further(job, message.share, message.detail)
                elif isinstance(message, Failure):
                    board.end(job, JobResult("failed", error=f"{job.name}: {message.error}"))
                else:
                    board.end(job, message.value)


def _perform(job: Job, report: Report) -> JobResult:
    began, cpu = time.perf_counter(), time.process_time()
    try:
        result = JobResult("done", job.run(report))
    except HarnessError as error:
        result = JobResult("failed", error=str(error))
    except OSError as error:
        result = JobResult("failed", error=system_error(error))
    return replace(result, seconds=time.perf_counter() - began, cpu_seconds=time.process_time() - cpu)


class _Board:
    """Which jobs wait, which are active, and how the others ended."""

    def __init__(self, jobs: list[Job], progress: JobProgress, workers: int) -> None:
        self.jobs, self.progress, self.workers = jobs, progress, workers
        self.waiting = list(jobs)
        self.active: dict[str, tuple[Job, float, float]] = {}
        self.results: dict[str, JobResult] = {}

    def next(self) -> Job | None:
        """The first job that could be started, taken off the list; None if there is none now."""
        open_names = {job.name for job in self.waiting} | set(self.active)
        for job in self.waiting:
            if not open_names & set(job.needs):
                self.waiting.remove(job)
                return job
        return None

    def start(self, job: Job) -> None:
        self.active[job.name] = (job, time.perf_counter(), 0.0)
        self._tell(job, 0.0, "", None)

    def further(self, job: Job, share: float, words: str) -> None:
        self.active[job.name] = (job, self.active[job.name][1], share)
        self._tell(job, share, words, None)

    def end(self, job: Job, result: JobResult) -> None:
        self.active.pop(job.name, None)
        self.results[job.name] = result
        self._tell(job, 1.0, "", result)
        if result.status == "done":
            return
        for other in [other for other in self.waiting if job.name in other.needs]:
            self.waiting.remove(other)
            self.end(other, JobResult("skipped", error=f"{job.name} failed"))

    def _tell(self, job: Job, share: float, words: str, result: JobResult | None) -> None:
        self.progress(Event(job, share, words, result, len(self.results), len(self.jobs), self._left()))

    def _left(self) -> float | None:
        """Seconds left: jobs of a kind that has been seen take as long as those did, others what they cost."""
        seen: dict[str, list[float]] = {}
        spent = costs = 0.0
        by_name = {job.name: job for job in self.jobs}
        now = time.perf_counter()
        samples = [(by_name[name], result.seconds) for name, result in self.results.items() if result.status == "done"]
        samples += [(job, (now - began) / share) for job, began, share in self.active.values() if share > 0.1]
        for job, seconds in samples:
            seen.setdefault(job.kind, []).append(seconds)
            spent, costs = spent + seconds, costs + job.cost
        if not costs:
            return None

        def expected(job: Job) -> float:
            times = seen.get(job.kind)
            return sum(times) / len(times) if times else job.cost * spent / costs

        under_way = [max(0.0, expected(job) * (1 - share)) for job, _, share in self.active.values()]
        waiting = sum(expected(job) for job in self.waiting)
        return max((waiting + sum(under_way)) / self.workers, max(under_way, default=0.0))
