"""Experiment trackers: one file each, a function that begins a run there.

An evaluation tells its tracker how far it is and what it found. Each tracker is a package of its own, and an extra of
this one.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from harness.engine.types import AttackProgress
from harness.errors import HarnessError
from harness.results.record import Result
from harness.util import plugins

__all__ = ["PROJECT", "Begin", "Run", "Tracked", "names", "tracked"]

PROJECT = "robust-harness"
"""What runs are filed under, where a tracker has projects or experiments."""

_PAUSE = 1.0
"""Seconds between two reports of one step."""


class Run(Protocol):
    """A run of a tracker."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Note figures by name. ``step`` counts the reports of a run."""
        ...

    def close(self) -> None:
        """End it."""
        ...


Begin = Callable[[str, Mapping[str, str | int | float]], Run]
"""Begins a run: its name, and what it is a run of."""


def names() -> tuple[str, ...]:
    """The trackers."""
    return plugins.members(__name__)


class Tracked:
    """The callback that tells a run of an evaluation. A tracker that fails ends no evaluation: a warning says so."""

    def __init__(self, run: Run | None, n: int) -> None:
        self._run, self._n = run, n
        self._step, self._told, self._count = "", 0.0, 0

    def __call__(self, progress: AttackProgress) -> None:
        """Tell how far it is, now and then."""
        now = time.monotonic()
        if progress.step == self._step and progress.done < 1 and now < self._told + _PAUSE:
            return
        self._step, self._told = progress.step, now
        self._log({f"done/{progress.step}": progress.done, "robust_acc_so_far": progress.surviving / self._n})

    def finish(self, result: Result) -> None:
        """Tell what was found."""
        robust = {"robust_acc": result.robust_acc} if result.steps else {}
        after = {f"robust_acc_after/{step.name}": step.after / result.n for step in result.steps}
        self._log({"clean_acc": result.clean_acc, **robust, **after, "flags": len(result.flags)})

    def close(self) -> None:
        """End the run."""
        if self._run is not None:
            self._guarded(self._run.close)

    def _log(self, values: Mapping[str, float]) -> None:
        run = self._run
        if run is not None:
            self._guarded(lambda: run.log(values, self._count))
            self._count += 1

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # a tracker may be a server that is gone
            self._run = None
            _warn(error)


@contextmanager
def tracked(tracker: str | None, name: str, about: Mapping[str, Any], n: int) -> Iterator[Tracked]:
    """What an evaluation of ``n`` samples reports to.

    Args:
        tracker: a registered name, or ``FILE.py:NAME``; None tells nobody.
        name: of the run. about: what it is a run of, nested as in a result.

    Raises:
        UnknownName: no tracker of that name.
        InvalidInput: its package is not installed.
    """
    begin: Begin | None = None if tracker is None else plugins.lookup(__name__, tracker, "tracker", Callable)
    run = Tracked(None if begin is None else _begun(begin, name, about), n)
    try:
        yield run
    finally:
        run.close()


def _begun(begin: Begin, name: str, about: Mapping[str, Any]) -> Run | None:
    """A run, or a warning that there is none."""
    try:
        return begin(name, _flat(about))
    except HarnessError:  # that its package is missing is known before anything was spent, and is easily mended
        raise
    except Exception as error:
        _warn(error)
        return None


def _warn(error: Exception) -> None:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    warnings.warn(f"the tracker failed, and hears no more of this evaluation: {reason}", stacklevel=3)


def _flat(about: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float]:
    """Nested values by dotted names; what is no number or text as JSON."""
    flat: dict[str, str | int | float] = {}
    for name, value in about.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            flat[f"{prefix}{name}"] = value if isinstance(value, str | int | float) else json.dumps(value, default=str)
    return flat
