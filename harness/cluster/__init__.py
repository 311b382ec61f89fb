"""One evaluation in many places: executors that run its shards, one file each.

An executor takes tasks from a `Queue` and runs them somewhere. A task is a shard of an evaluation, and its part file
says that it is done, so that whatever is killed is gone on with by the same command.
"""

from __future__ import annotations

from harness.cluster._base import Commands, Executor, Make, Options
from harness.cluster._evaluate import HandedOver, evaluate
from harness.cluster._queue import Queue, Task
from harness.util import plugins

__all__ = ["Commands", "Executor", "HandedOver", "Make", "Options", "Queue", "Task", "evaluate", "executor", "names"]


def names() -> tuple[str, ...]:
    """The executors."""
    return plugins.members(__name__)


def executor(name: str, options: Options) -> Executor:
    """An executor by its registered name, or ``FILE.py:NAME``.

    Raises:
        UnknownName: there is none of that name.
        InvalidInput: what it needs is not here.
    """
    make: Make = plugins.lookup(__name__, name, "executor")
    return make(options)
