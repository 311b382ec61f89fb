"""Jobs that need each other, done side by side.

On a CPU every job is a forked process of its own with one thread: that is the fastest way through many small
networks, a job cannot disturb another, and a killed one loses no more than itself. On a GPU jobs run one after
the other in this process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any, Literal

import torch

from harness.errors import HarnessError

__all__ = ["Done", "Event", "Job", "Report", "Tell", "can_isolate", "schedule"]

Report = Callable[[float, str], None]
"""Hears the share of a job that is done, in [0, 1], and a few words on where it is."""


@dataclass(frozen=True)
class Job:
    """Something to be done.

    Attributes:
        name: unlike any other's.
        kind: jobs of one kind take about equally long.
        cost: against jobs of other kinds, in any unit.
        needs: names of the jobs that come first; names that are no jobs count as done.
        work: does it and says what the caller should know of it, in plain values.
    """

    name: str
    kind: str
    needs: tuple[str, ...]
    work: Callable[[Report], Any] = field(repr=False)
    cost: float = 1.0


@dataclass(frozen=True)
class Done:
    """How a job ended.

    Attributes:
        status: "skipped" if one that it needs failed.
        value: of ``work``. error: one sentence, where it failed or was skipped.
        seconds: from start to end. cpu_seconds: of the processor's time.
    """

    status: Literal["done", "failed", "skipped"]
    value: Any = None
    error: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Event:
    """What happened to a job: it started, came further, or ended (``done``).

    Attributes:
        finished, total: jobs, all in all.
        left: seconds until all is done, as far as that can be told.
    """

    job: Job
    share: float
    words: str
    done: Done | None
    finished: int
    total: int
    left: float | None


Tell = Callable[[Event], None]


def can_isolate(device: torch.device) -> bool:
    """Whether jobs can be processes of their own: on a CPU, where processes can be forked."""
    able = sys.platform != "win32" and "fork" in multiprocessing.get_all_start_methods()
    return able and device.type == "cpu"


def schedule(jobs: Sequence[Job], *, workers: int, isolated: bool, tell: Tell) -> dict[str, Done]:
    """Do all jobs, each as soon as what it needs is done, in the order given otherwise.

    A job that fails takes those with it that need it; all others are done.

    Args:
        workers: how many at once. isolated: each in a process of its own.

    Raises:
        KeyboardInterrupt: after the jobs at work were ended.
    """
    board = _Board(list(jobs), tell, workers if isolated else 1)
    if isolated:
        _side_by_side(board)
    else:
        while job := board.next():
            board.start(job)
            began, cpu = time.perf_counter(), time.process_time()

            def report(share: float, words: str, job: Job = job) -> None:
                board.further(job, share, words)

            try:
                done = Done("done", job.work(report))
            except HarnessError as error:
                done = Done("failed", error=str(error))
            board.end(job, done, time.perf_counter() - began, time.process_time() - cpu)
    return board.ended


class _Board:
    """Which jobs wait, which are at work, and how the others ended."""

    def __init__(self, jobs: list[Job], tell: Tell, workers: int) -> None:
        self.jobs, self.tell, self.workers = jobs, tell, workers
        self.waiting = list(jobs)
        self.active: dict[str, tuple[Job, float, float]] = {}
        self.ended: dict[str, Done] = {}

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

    def end(self, job: Job, done: Done, seconds: float, cpu_seconds: float) -> None:
        self.active.pop(job.name, None)
        self.ended[job.name] = Done(done.status, done.value, done.error, seconds, cpu_seconds)
        self._tell(job, 1.0, "", self.ended[job.name])
        if done.status == "done":
            return
        for other in [other for other in self.waiting if job.name in other.needs]:
            self.waiting.remove(other)
            self.end(other, Done("skipped", error=f"{job.name} failed"), 0.0, 0.0)

    def _tell(self, job: Job, share: float, words: str, done: Done | None) -> None:
        self.tell(Event(job, share, words, done, len(self.ended), len(self.jobs), self._left()))

    def _left(self) -> float | None:
        """Seconds left: jobs of a kind that has been seen take as long as those did, others what they cost."""
        seen: dict[str, list[float]] = {}
        spent = costs = 0.0
        by_name = {job.name: job for job in self.jobs}
        now = time.perf_counter()
        samples = [(by_name[name], ended.seconds) for name, ended in self.ended.items() if ended.status == "done"]
        samples += [(job, (now - began) / share) for job, began, share in self.active.values() if share > 0.1]
        for job, seconds in samples:
            seen.setdefault(job.kind, []).append(seconds)
            spent, costs = spent + seconds, costs + job.cost
        if not costs:
            return None

        def expected(job: Job) -> float:
            times = seen.get(job.kind)
            return sum(times) / len(times) if times else job.cost * spent / costs

        at_work = [max(0.0, expected(job) * (1 - share)) for job, _, share in self.active.values()]
        waiting = sum(expected(job) for job in self.waiting)
        return max((waiting + sum(at_work)) / self.workers, max(at_work, default=0.0))


def _side_by_side(board: _Board) -> None:
    context = multiprocessing.get_context("fork")
    at_work: dict[connection.Connection, tuple[Job, Any, float]] = {}
    try:
        while True:
            while len(at_work) < board.workers and (job := board.next()):
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_live, args=(job, theirs, [ours, *at_work]))
                process.start()
                theirs.close()
                at_work[ours] = (job, process, time.perf_counter())
                board.start(job)
            if not at_work:
                return
            for end in connection.wait(list(at_work)):
                if isinstance(end, connection.Connection):
                    _listen(board, at_work, end)
    finally:
        for end, (_, process, _) in at_work.items():
            end.close()
            process.terminate()
            process.join()


def _listen(
    board: _Board, at_work: dict[connection.Connection, tuple[Job, Any, float]], end: connection.Connection
) -> None:
    job, process, began = at_work[end]
    try:
        kind, content = end.recv()
    except (EOFError, ConnectionError):
        process.join()
        kind, content = (
            "failed",
            (
                f"{job.name}: its process died (exit code {process.exitcode}; -9 often means that memory ran out); "
                "give the same command again to go on, with fewer --workers",
                0.0,
            ),
        )
    if kind == "further":
        board.further(job, *content)
        return
    del at_work[end]
    end.close()
    process.join()
    if kind == "defect":
        raise RuntimeError(content)
    value, cpu_seconds = content
    done = Done("done", value) if kind == "done" else Done("failed", error=value)
    board.end(job, done, time.perf_counter() - began, cpu_seconds)


def _live(job: Job, end: connection.Connection, others: list[connection.Connection]) -> None:
    """A job's process, from its first breath to its last."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends us
    for other in others:
        other.close()
    torch.set_num_threads(1)
    last = 0.0

    def report(share: float, words: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < 0.2:
            return
        last = now
        try:
            end.send(("further", (share, words)))
        except OSError:
            os._exit(1)  # nobody listens any more; what was saved is there to go on from

    began = time.process_time()
    try:
        end.send(("done", (job.work(report), time.process_time() - began)))
    except HarnessError as error:
        end.send(("failed", (str(error), time.process_time() - began)))
    except OSError as error:
        end.send(("failed", (f"{error.filename or job.name}: {error.strerror or error}", time.process_time() - began)))
    except Exception as error:  # a bug must reach the user with its place
        end.send(("defect", f"{error!r} in {job.name}:\n{traceback.format_exc()}"))
    end.close()
    os._exit(0)
