"""The errors that this package raises.

::

    HarnessError                 anything a user can mend; its text is one clear sentence
    ├── UnknownName              a name that is not registered; lists the known ones and the nearest
    ├── InvalidInput             an argument, file or data set that cannot be used as given
    ├── CheckpointError          a checkpoint or manifest that is missing, damaged or does not fit
    ├── ModelError               the model under attack misbehaved: raised, wrong shape, NaN, changing state
    │   └── NoGradient           its output does not depend on its input in a way that can be differentiated
    ├── ContractError            a plug-in that does not keep to what its family promises
    ├── AttackError              an attack proposed a point outside its threat model (a bug, never a success)
    ├── ResultError              a result file that cannot be read or reconciled
    ├── StorageError             a file that cannot be written: no space, no permission, no such folder
    └── WorkerLost               a worker process that was killed or crashed

Library code raises these and never prints or exits; the command line turns them into one line on
stderr and exit code 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AttackError",
    "CheckpointError",
    "ContractError",
    "HarnessError",
    "InvalidInput",
    "ModelError",
    "NoGradient",
    "ResultError",
    "StorageError",
    "UnknownName",
    "WorkerLost",
    "did_you_mean",
    "nearest",
    "system_error",
]


class HarnessError(Exception):
    """Base of every error that is raised on purpose."""


class UnknownName(HarnessError):
    """A name that no registered member carries."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        listed = ", ".join(names) if names else "none"
        super().__init__(f"unknown {kind} {name!r}: expected one of {listed}{did_you_mean(name, names)}")
        self.kind = kind
        self.name = name
        self.known = names


class InvalidInput(HarnessError):
    """An argument, file or data set that cannot be used as given."""


class CheckpointError(HarnessError):
    """A checkpoint or manifest that is missing, damaged or does not fit its architecture."""


class ModelError(HarnessError):
    """The model under attack misbehaved."""


class NoGradient(ModelError):
    """The model's output has no gradient with respect to its input."""


class ContractError(HarnessError):
    """A plug-in that does not keep to what its family promises."""


class AttackError(HarnessError):
    """An attack proposed a point outside its threat model."""


class ResultError(HarnessError):
    """A result file that cannot be read or reconciled."""


class StorageError(HarnessError):
    """A file that cannot be written."""


class WorkerLost(HarnessError):
    """A worker process that was killed or crashed."""


def nearest(name: str, known: Iterable[str], *, count: int = 1, cutoff: float = 0.4) -> list[str]:
    """Up to ``count`` of the known names, those most like ``name`` first.

    Args:
        cutoff: from 0, anything, to 1, the name itself.
    """
    return difflib.get_close_matches(name, list(known), n=count, cutoff=cutoff)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that is not known: the nearest one, or nothing if none is near."""
    found = nearest(name, known)
    return f"; did you mean {found[0]!r}?" if found else ""


def system_error(error: OSError) -> str:
    """What the system refused, as one sentence."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
