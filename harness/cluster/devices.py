"""Devices of this machine: one process a device, over one queue."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import torch

from harness import evaluation
from harness.cluster._absence import Absence
from harness.cluster._base import Options, unexpected
from harness.cluster._queue import Queue, Task
from harness.errors import HarnessError, InvalidInput, WorkerLost
from harness.evaluation import Plan
from harness.util.devices import find_device
from harness.util.pool import Answer, Failure, Progress, Report, WorkerPool, can_fork
from harness.util.torch_state import backward_runs_in_a_fork

__all__ = ["Devices", "devices"]

_SECONDS_BETWEEN_CHECKS = 1.0


def devices(options: Options) -> Devices:
    """The devices that the options name.

    Raises:
        InvalidInput: one that this machine lacks, or processes cannot be forked here.
    """
    return Devices(_named(options.devices), options.timeout)


def _named(text: str) -> tuple[torch.device, ...]:
    if text == "all":
        number = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not number:
            raise InvalidInput("--devices all: this machine has no GPU; name devices, such as cpu,cpu")
        return tuple(torch.device("cuda", index) for index in range(number))
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InvalidInput(f"devices are written as all, 0,1 or cpu,cpu, got {text!r}")
    return tuple(find_device(f"cuda:{name}" if name.isdigit() else name) for name in names)


@dataclass(frozen=True)
class _Running:
    """A task that a process works on: where, and when it was last heard of."""

    task: Task
    place: int
    heard: float


class Devices:
    """One process a device, each with a shard at a time. A device whose process dies or hangs is not used again.

    Args:
        names: the devices, each as often as it is to have a process.
        timeout: seconds without a word after which a process counts as hanging.
    """

    def __init__(self, names: tuple[torch.device, ...], timeout: float = 600.0) -> None:
        self.names = names
        self.timeout = timeout

    @property
    def slots(self) -> int:
        """Their number."""
        return len(self.names)

    def run(self, queue: Queue) -> None:
        """As `harness.cluster.Executor.run`.

        Raises:
            InvalidInput: processes cannot be forked here.
            WorkerLost: no device is left.
        """
        _refuse_unforkable(self.names)
        lost = _Run(self, queue).to_the_end()
        if queue.waiting:
            told = "; ".join(f"{self.names[place]}: {reason}" for place, reason in lost.items())
            raise WorkerLost(
                f"no device is left and {queue.waiting} shards are to be done; the others are kept: give the same "
                f"command again to go on ({told})"
            )


class _Run:
    """The processes that work on a queue."""

    def __init__(self, devices: Devices, queue: Queue) -> None:
        self.devices, self.queue = devices, queue
        self.running: dict[int, _Running] = {}
        self.free = list(range(devices.slots))
        self.lost: dict[int, str] = {}

    def to_the_end(self) -> dict[int, str]:
        """Run until nothing is left to do or no device to do it; returns which devices were lost, and why."""
        keys = count()
        absence = Absence(_SECONDS_BETWEEN_CHECKS)
        # a process a shard: nothing that one leaves on a device disturbs the next
        with WorkerPool(self.devices.slots, self._serve, fresh=True) as pool:
            while True:
                while self.free and (task := self.queue.next()):
                    key = next(keys)
                    self.running[key] = _Running(task, self.free.pop(0), time.monotonic())
                    pool.submit(key, key)
                if not self.running:
                    return self.lost
                messages = pool.wait(_SECONDS_BETWEEN_CHECKS)
                self._excuse(absence.seconds())
                for message in messages:
                    self._hear(message)
                self._end_useless(pool)

    def _serve(self, key: int, report: Report) -> None:
        at = self.running[key]
        _attack(at.task, self.devices.names[at.place], self.queue.root, report)

    def _excuse(self, seconds: float) -> None:
        """Nobody is to be blamed for what was not heard while this process did not listen."""
        self.running = {key: replace(at, heard=at.heard + seconds) for key, at in self.running.items()}

    def _hear(self, message: Progress | Answer | Failure) -> None:
        at = self.running[message.key]
        if isinstance(message, Progress):
            self.running[message.key] = replace(at, heard=time.monotonic())
            self.queue.further(at.task, message.detail)
            return
        del self.running[message.key]
        if isinstance(message, Failure) and isinstance(message.error, WorkerLost):
            self._lose(at, str(message.error))
            return
        self.free.append(at.place)
        if isinstance(message, Failure):
            self.queue.failed(at.task, message.error)
        else:
            self.queue.done(at.task)

    def _end_useless(self, pool: WorkerPool) -> None:
        """End processes that hang, or whose evaluation has failed meanwhile."""
        for key, at in list(self.running.items()):
            silent = time.monotonic() - at.heard
            wanted = self.queue.is_wanted(at.task)
            if wanted and silent <= self.devices.timeout:
                continue
            pool.abandon(key)
            del self.running[key]
            if wanted:
                self._lose(at, f"its process said nothing for {silent:.0f} s")
            else:
                self.free.append(at.place)

    def _lose(self, at: _Running, reason: str) -> None:
        self.lost[at.place] = reason
        self.queue.lost(at.task, f"{self.devices.names[at.place]} is not used any more: {reason}")


def _refuse_unforkable(names: tuple[torch.device, ...]) -> None:
    if torch.cuda.is_initialized() and any(name.type == "cuda" for name in names):  # type: ignore[no-untyped-call]
        raise InvalidInput("this process has used a GPU already, so that no other of its processes can: start anew")
    if not can_fork() or not backward_runs_in_a_fork():
        raise InvalidInput("this system cannot give each device a process of its own; use --device, or --shard by hand")


def _attack(task: Task, device: torch.device, root: Path, report: Report) -> None:
    """Have the part of a task in its place. Runs in the process of a device."""
    torch.set_num_threads(1)  # threads that the parent has begun are not here
    try:
        evaluation.obtain_part(
            _on(task.plan, device),
            task.shard,
            root,
            progress=lambda tick: report(min(tick.done, 0.999), tick),
        )
    except OSError:
        raise
    except Exception as error:
        reason = _of_the_device(error)
        if reason is not None:
            raise WorkerLost(reason) from error
        if isinstance(error, HarnessError):
            raise
        raise unexpected(error) from error


def _on(plan: Plan, device: torch.device) -> Plan:
    return replace(plan, settings=replace(plan.settings, device=device, workers=1))


def _of_the_device(error: BaseException | None) -> str | None:
    """What a device said of itself, if that is what an error is about."""
    while error is not None:
        if isinstance(error, torch.AcceleratorError):
            return str(error).splitlines()[0]
        error = error.__cause__
    return None
