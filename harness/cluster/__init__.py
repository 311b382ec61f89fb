"""One evaluation in many places: executors that run its shards, one file each.

An executor takes tasks from a `Queue` and runs them somewhere. A task is a shard of an evaluation, and its part file
says that it is done, so that whatever is killed is gone on with by the same command.
"""

from __future__ import annotations

from harness.cluster._base import Commands, Executor, Make, Options
from harness.cluster._evaluate import HandedOver, evaluate
from harness.cluster._queue import Queue, Task
from harness.errors import ContractError
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
        ContractError: it is no executor.
    """
    make: Make = plugins.lookup(__name__, name, "executor")
    if not callable(make):
        raise ContractError(
            f"the executor {name} must be a function that takes harness.cluster.Options, got a {type(make).__name__}"
        )
    made = make(options)
    if not isinstance(getattr(made, "slots", None), int) or not callable(getattr(made, "run", None)):
        raise ContractError(
            f"the executor {name} must return an object with slots, a whole number, and run(queue), got a "
            f"{type(made).__name__}"
        )
    return made
