"""Worker processes: forked, fed through pipes, and never left behind.

Workers are forked, so that whatever they work on needs no pickling and is shared. Requests, progress, answers and
errors travel as pickles between a process and the workers that it forked itself; nothing of that is ever a file.

A worker ends with the process that forked it, however that one ends. The system kills it where it can (Linux), and
elsewhere it notices at its next message, because no other process holds the far end of its pipe: whoever is forked
closes at once all the ends that its parent held.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

from harness.errors import HarnessError, WorkerLost, system_error

__all__ = ["Answer", "Failure", "Progress", "Report", "Serve", "WorkerPool", "can_fork"]

Report = Callable[[float, Any], None]
"""Hears the share of a request that is done, in [0, 1], and a detail that can be pickled."""

Serve = Callable[[Any, Report], Any]
"""Answers a request. Requests and answers can be pickled."""

_SECONDS_BETWEEN_REPORTS = 0.1
_SECONDS_TO_END = 1.0
_PR_SET_PDEATHSIG = 1

_parents_ends: weakref.WeakSet[connection.Connection] = weakref.WeakSet()
# no other worker may be forked while a pipe has both its ends in this process
_forking = threading.Lock()


@dataclass(frozen=True)
class Progress:
    """How far the request ``key`` has come."""

    key: int
    share: float
    detail: Any


@dataclass(frozen=True)
class Answer:
    """The request ``key`` is answered."""

    key: int
    value: Any


@dataclass(frozen=True)
class Failure:
    """The request ``key`` failed, or its worker was lost (`WorkerLost`)."""

    key: int
    error: HarnessError


def can_fork() -> bool:
    """Whether this system can fork processes."""
    return sys.platform != "win32" and "fork" in multiprocessing.get_all_start_methods()


class WorkerPool:
    """Up to ``size`` forked processes that answer requests, one at a time each.

    Args:
        serve: runs in the workers. A `HarnessError` or OSError that it raises becomes a `Failure`; anything else is a
            defect, which is raised here with its traceback.
        fresh: every request gets a process of its own, that nothing done before can disturb.
    """

    def __init__(self, size: int, serve: Serve, *, fresh: bool = False) -> None:
        self.size = size
        self._serve = serve
        self._fresh = fresh
        self._idle = [] if fresh else [_Worker(serve) for _ in range(size)]
        self._busy: dict[connection.Connection, tuple[_Worker, int]] = {}

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def free(self) -> int:
        """How many more requests can be taken now."""
        return self.size - len(self._busy)

    @property
    def processes(self) -> list[int]:
        """The numbers of the worker processes that are there."""
        return [worker.process.pid or 0 for worker in (*self._idle, *(worker for worker, _ in self._busy.values()))]

    def submit(self, key: int, request: Any) -> None:
        """Give a request to a free worker; `wait` has the answer, under ``key``."""
        worker = _Worker(self._serve) if self._fresh else self._idle.pop()
        self._busy[worker.end] = worker, key
        worker.send(request)

    def wait(self, seconds: float | None = None) -> list[Progress | Answer | Failure]:
        """What the workers say next; waits until one of them says something, or for so many seconds."""
        messages: list[Progress | Answer | Failure] = []
        for end in connection.wait(list(self._busy), seconds):
            worker, key = self._busy[end]  # type: ignore[index]
            kind, content = worker.receive()
            if kind == "progress":
                messages.append(Progress(key, *content))
                continue
            del self._busy[worker.end]
            if self._fresh or kind == "lost":
                worker.close()
            if not self._fresh:
                self._idle.append(_Worker(self._serve) if kind == "lost" else worker)
            if kind == "defect":
                raise RuntimeError(content)
            messages.append(Answer(key, content) if kind == "answer" else Failure(key, content))
        return messages

    def abandon(self, key: int) -> None:
        """End the process that works on a request, of which nothing more is heard."""
        for end, (worker, its_key) in list(self._busy.items()):
            if its_key == key:
                del self._busy[end]
                worker.process.kill()  # one that hangs may not listen to anything else
                worker.close()
                if not self._fresh:
                    self._idle.append(_Worker(self._serve))

    def run(self, requests: Sequence[Any], heard: Callable[[Progress], None]) -> list[Any]:
        """The answers to all requests, in order; ``heard`` is told of progress, by position.

        Raises:
            HarnessError: the first failure. What other workers are at then is of no more use: close the pool.
        """
        answers: list[Any] = [None] * len(requests)
        waiting = list(enumerate(requests))[::-1]
        while waiting or self._busy:
            while waiting and self.free:
                self.submit(*waiting.pop())
            for message in self.wait():
                if isinstance(message, Failure):
                    raise message.error
                if isinstance(message, Progress):
                    heard(message)
                else:
                    answers[message.key] = message.value
        return answers

    def close(self) -> None:
        """Let idle workers go and end those at work."""
        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            worker.close()
        self._idle, self._busy = [], {}


class _Worker:
    """One forked process and our end of its pipe."""

    def __init__(self, serve: Serve) -> None:
        context = multiprocessing.get_context("fork")
        with _forking:
            self.end, theirs = context.Pipe()
            _parents_ends.add(self.end)
            self.process: BaseProcess = context.Process(target=_live, args=(theirs, serve, os.getpid()), daemon=True)
            self.process.start()
            theirs.close()

    def send(self, request: Any) -> None:
        with suppress(OSError):  # that it is lost is heard when it is listened to
            self.end.send_bytes(_packed(request))

    def receive(self) -> tuple[str, Any]:
        try:
            message: tuple[str, Any] = _receive(self.end)
        except (EOFError, OSError):
            return "lost", self._lost()
        return message

    def close(self) -> None:
        self.end.close()
        self.process.join(timeout=0 if self.process.exitcode is not None else 0.2)
        for stop in (self.process.terminate, self.process.kill):
            if self.process.is_alive():
                stop()
                self.process.join(_SECONDS_TO_END)

    def _lost(self) -> WorkerLost:
        self.process.join(_SECONDS_TO_END)
        return WorkerLost(
            f"a worker process died (exit code {self.process.exitcode}; -9 often means that memory ran out); what was "
            "finished is kept: give the same command again to go on, with fewer --workers or a smaller --batch-size"
        )


def _packed(message: object) -> bytes:
    # by value: torch would send every tensor as an open file of shared memory, and run out of them
    return pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)


def _receive(end: connection.Connection) -> Any:
    return pickle.loads(end.recv_bytes())


def _live(end: connection.Connection, serve: Serve, parent: int) -> NoReturn:
    """The life of a worker: it answers requests until nobody is there to send one."""
    _end_with(parent)
    # the parent hears an interrupt too, and ends its workers; a handler of the parent's is none of theirs
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    told = 0.0

    def report(share: float, detail: Any) -> None:
        nonlocal told
        now = time.monotonic()
        if share >= 1 or now - told > _SECONDS_BETWEEN_REPORTS:
            told = now
            _send_or_end(end, _packed(("progress", (share, detail))))

    while True:
        try:
            request = _receive(end)
        except (EOFError, OSError):
            os._exit(0)
        _send_or_end(end, _answer(serve, request, report))


def _answer(serve: Serve, request: Any, report: Report) -> bytes:
    """What to send back, packed."""
    try:
        return _packed(("answer", serve(request, report)))
    except HarnessError as error:
        return _packed(("failed", _portable(error)))
    except OSError as error:
        return _packed(("failed", HarnessError(system_error(error))))
    except Exception as error:  # a bug must reach the user with its place, and not as a lost worker
        return _packed(("defect", f"{error!r} in a worker:\n{traceback.format_exc()}"))


def _send_or_end(end: connection.Connection, message: bytes) -> None:
    try:
        end.send_bytes(message)
    except OSError:
        os._exit(1)  # nobody listens any more; what was saved is there to go on from


def _portable(error: HarnessError) -> HarnessError:
    """The error, or its text alone where it is of a class that cannot be pickled."""
    try:
        return error if isinstance(pickle.loads(pickle.dumps(error)), type(error)) else HarnessError(str(error))
    except Exception:  # classes may fail at it in any way
        return HarnessError(str(error))


def _end_with(parent: int) -> None:
    """Have the system kill this process when its parent ends."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _close_parents_ends() -> None:
    for end in list(_parents_ends):
        end.close()
    _parents_ends.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_parents_ends)
