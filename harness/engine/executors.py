"""Who runs the tasks: this process, or one process per core.

On a CPU small models are fastest with one thread a worker and as many workers as cores; two threads in one
process can be far slower than one when the machine is busy. Workers are forked, so that any model works,
also one that cannot be pickled, and its weights are shared.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.engine.snapshots import State
from harness.engine.task import execute
from harness.engine.types import Assignment, Index, Machine, Pool, TaskResult
from harness.errors import HarnessError, InvalidInput

__all__ = ["Crew", "Crowd", "Solo", "count", "crew"]

Report = Callable[[float, int], None]


class Crew(Protocol):
    """Runs tasks over one pool."""

    size: int

    def logits(self, index: Index) -> tuple[Tensor, float]:
        """The plain model's output ``[m, k]`` on clean images, and the seconds spent in the model."""
        ...

    def run(self, assignments: Sequence[Assignment], report: Report) -> list[TaskResult]:
        """Run tasks to their end, or to where they hand back the rest.

        ``report`` hears the share done and the samples standing over all of them, those of several tasks several
        times.
        """
        ...

    def close(self) -> None:
        """Let the workers go."""
        ...


def count(workers: int | str, device: torch.device) -> int:
    """How many processes ``workers`` asks for ("auto": the cores that this process may use).

    Raises:
        InvalidInput: not "auto" or a positive number, or several on a GPU or where processes cannot be forked.
    """
    able = device.type == "cpu" and "fork" in multiprocessing.get_all_start_methods()
    # where there is a GPU, torch's autograd keeps threads that do not live on in a forked process
    able = able and not torch.cuda.is_available()
    if workers == "auto":
        return len(os.sched_getaffinity(0)) if able and hasattr(os, "sched_getaffinity") else 1
    if not isinstance(workers, int) or workers < 1:
        raise InvalidInput(f"workers must be 'auto' or a positive number, got {workers!r}")
    if workers > 1 and not able:
        raise InvalidInput(f"{workers} workers need a CPU device and a system without a GPU that can fork; use 1")
    return workers


def crew(size: int, pool: Pool, machine: Machine, state: State) -> Crew:
    """A crew of ``size`` workers."""
    return Solo(pool, machine, state) if size == 1 else Crowd(size, pool, machine, state)


@dataclass
class Solo:
    """This process."""

    pool: Pool
    machine: Machine
    state: State
    size: int = 1

    def logits(self, index: Index) -> tuple[Tensor, float]:
        return _clean(self.pool, self.machine, index)

    def run(self, assignments: Sequence[Assignment], report: Report) -> list[TaskResult]:
        outcomes = []
        left = sum(task.samples for task, _ in assignments)
        for position, (task, snapshot) in enumerate(assignments):
            others = left - task.samples

            def told(done: float, standing: int, position: int = position, others: int = others) -> None:
                report((position + done) / len(assignments), others + standing)

            outcomes.append(
                execute(
                    task,
                    self.pool,
                    self.machine,
                    resume=snapshot,
                    checkpoint=lambda shot, task=task: self.state.save_part(task, shot),  # type: ignore[misc]
                    progress=told,
                )
            )
            left -= len(outcomes[-1].broken)
        return outcomes

    def close(self) -> None:
        pass


def _clean(pool: Pool, machine: Machine, index: Index) -> tuple[Tensor, float]:
    machine.judge.drain()
    parts = []
    for begin in range(0, len(index), machine.batch_size):
        rows = torch.from_numpy(index[begin : begin + machine.batch_size])
        parts.append(machine.judge.logits(pool.x[rows].to(machine.device), "on the clean images").cpu())
    return torch.cat(parts), machine.judge.drain()


class Crowd:
    """Forked processes, one thread each, fed through pipes."""

    def __init__(self, size: int, pool: Pool, machine: Machine, state: State) -> None:
        self.size = size
        context = multiprocessing.get_context("fork")
        self._ends: list[connection.Connection] = []
        self._processes = []
        for _ in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, list(self._ends), pool, machine, state), daemon=True)
            process.start()
            theirs.close()
            self._ends.append(ours)
            self._processes.append(process)

    def logits(self, index: Index) -> tuple[Tensor, float]:
        shares = [index[slot :: self.size] for slot in range(self.size)]
        answers = self._ask([("clean", share) for share in shares if len(share)], lambda slot, done, standing: None)
        logits = torch.empty((len(index), answers[0][0].shape[1]), dtype=answers[0][0].dtype)
        for slot, (part, _) in enumerate(answers):
            logits[slot :: self.size] = part
        return logits, sum(seconds for _, seconds in answers)

    def run(self, assignments: Sequence[Assignment], report: Report) -> list[TaskResult]:
        done = [0.0] * len(assignments)
        standing = [task.samples for task, _ in assignments]

        def told(position: int, share: float, left: int) -> None:
            done[position], standing[position] = share, left
            report(sum(done) / len(done), sum(standing))

        return self._ask([("run", assignment) for assignment in assignments], told)

    def close(self) -> None:
        for end in self._ends:
            end.close()
        for process in self._processes:
            process.join(timeout=0.2)
            if process.is_alive():
                process.terminate()
                process.join()

    def _ask(self, questions: list[Any], told: Callable[[int, float, int], None]) -> list[Any]:
        """Hand out questions, one at a time to each worker, and collect the answers in order."""
        answers: list[Any] = [None] * len(questions)
        waiting = list(enumerate(questions))[::-1]
        busy: dict[connection.Connection, int] = {}
        for end in self._ends:
            if waiting:
                busy[end] = self._send(end, *waiting.pop())
        while busy:
            ready = connection.wait(list(busy))
            for end in [known for known in busy if known in ready]:
                try:
                    kind, content = _receive(end)
                except (EOFError, ConnectionError):
                    raise self._lost(end) from None
                if kind == "tick":
                    told(busy[end], *content)
                elif kind == "error":
                    raise content
                else:
                    answers[busy.pop(end)] = content
                    if waiting:
                        busy[end] = self._send(end, *waiting.pop())
        return answers

    def _send(self, end: connection.Connection, position: int, question: Any) -> int:
        try:
            _tell(end, question)
        except (BrokenPipeError, ConnectionError):
            raise self._lost(end) from None
        return position

    def _lost(self, end: connection.Connection) -> HarnessError:
        process = self._processes[self._ends.index(end)]
        process.join(timeout=1)
        return HarnessError(
            f"a worker process died (exit code {process.exitcode}; -9 often means that memory ran out); what was "
            "finished is kept: give the same command again to go on, with fewer --workers or a smaller --batch-size"
        )


def _tell(end: connection.Connection, message: object) -> None:
    # by value: torch would send every tensor as an open file of shared memory, and run out of them
    end.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))


def _receive(end: connection.Connection) -> tuple[Any, Any]:
    message: tuple[Any, Any] = pickle.loads(end.recv_bytes())
    return message


def _serve(
    end: connection.Connection,
    others: list[connection.Connection],
    pool: Pool,
    machine: Machine,
    state: State,
) -> None:
    """A worker's life: answer questions until the pipe closes."""
    for other in others:
        other.close()  # or a sibling's pipe would never be seen to close
    torch.set_num_threads(1)
    last = 0.0

    def progress(done: float, standing: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.1 or done == 1:
            last = now
            _tell(end, ("tick", (done, standing)))

    while True:
        try:
            kind, content = _receive(end)
        except (EOFError, ConnectionError, KeyboardInterrupt):
            os._exit(0)
        try:
            if kind == "clean":
                answer: object = _clean(pool, machine, content)
            else:
                task, snapshot = content
                answer = execute(
                    task,
                    pool,
                    machine,
                    resume=snapshot,
                    checkpoint=lambda shot, task=task: state.save_part(task, shot),  # type: ignore[misc]
                    progress=progress,
                )
            _tell(end, ("answer", answer))
        except KeyboardInterrupt:
            os._exit(130)
        except HarnessError as error:
            _tell(end, ("error", error))
        except ConnectionError:
            os._exit(0)
        except Exception as error:  # a bug must reach the user with its place, not as a lost worker
            import traceback

            _tell(end, ("error", RuntimeError(f"{error!r} in a worker:\n{traceback.format_exc()}")))
