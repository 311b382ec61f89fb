"""What an executor is, and what it is told."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from harness.cluster._queue import Queue
from harness.errors import HarnessError
from harness.util.user_file import one_line

__all__ = ["Commands", "Executor", "Make", "Options", "unexpected"]


class Commands(NamedTuple):
    """The work as command lines, for executors whose tasks are programs.

    Attributes:
        shard: runs one shard of all evaluations, with ``--workers`` and ``--shard`` added to it.
        collect: joins what is complete.
    """

    shard: tuple[str, ...]
    collect: tuple[str, ...]


@dataclass(frozen=True)
class Options:
    """What executors can be told; each looks at what concerns it.

    Attributes:
        devices: of this machine: ``all`` GPUs, or names and numbers such as ``0,1`` or ``cpu,cpu``.
        device: the kind of device that was asked for, such as ``cpu``; None leaves it to the executor.
        ray_address: of a running Ray cluster; None starts one on this machine.
        timeout: seconds after which whoever has said nothing counts as lost.
        partition: of a Slurm cluster. task_seconds: that a shard may take there; None forecasts it.
        commands: the work as command lines; None where no command line asks for it.
    """

    devices: str = "all"
    device: str | None = None
    ray_address: str | None = None
    timeout: float = 600.0
    partition: str | None = None
    task_seconds: float | None = None
    commands: Commands | None = None


class Executor(Protocol):
    """Somewhere to run the tasks of a queue."""

    @property
    def slots(self) -> int:
        """How many tasks it runs at once, as far as it knows."""
        ...

    def run(self, queue: Queue) -> None:
        """Run the tasks until none is waiting or at work, or hand all of them over to somebody who will.

        Every part is stored under ``queue.root`` before the queue hears of it. What is taken from the queue and is
        neither done nor failed at the end counts as handed over.

        Raises:
            HarnessError: there is nowhere left to run the tasks.
            KeyboardInterrupt: after all that was started was ended.
        """
        ...


Make = Callable[[Options], Executor]
"""Makes an executor.

Raises:
    InvalidInput: what it needs is not here.
"""


def unexpected(error: Exception) -> HarnessError:
    """A defect, mostly of somebody's model or attack, as one sentence; its note, shown with a traceback, says where."""
    failed = HarnessError(f"unexpected {one_line(error)}")
    failed.add_note("".join(traceback.format_exception(error)))
    return failed
