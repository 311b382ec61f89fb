"""The state of an evaluation in flight, so that a killed one goes on where it was.

A folder per evaluation, named by the hash of its inputs, holds ``pool.pt`` (what is known of every sample,
written between tasks) and ``part-*.pt`` for the tasks in flight. Files are replaced atomically,
hold tensors and plain values only, and are removed when the evaluation ends. A part belongs to the pool
state that it was started from; one that does not fit is ignored, which costs time and changes nothing.
"""

from __future__ import annotations

import pickle
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness.backends.passes import Tally
from harness.engine.types import Snapshot, Task, TaskResult
from harness.util.files import write_atomically

__all__ = ["Part", "State"]

_VERSION = 6
_INTERVAL = 5.0
_FIRST = 2.0


@dataclass(frozen=True)
class Part:
    """A task in flight as it was saved: which runs of which step, of which samples, and how far."""

    step: int
    first_run: int
    parallel_runs: int
    index: torch.Tensor
    runs: torch.Tensor
    stop_at: float
    snapshot: Snapshot

    @property
    def pairs(self) -> set[tuple[int, int]]:
        """The samples, each with a run of it."""
        return set(zip(self.index.tolist(), self.runs.tolist(), strict=True))


@dataclass
class State:
    """The saved state of one evaluation.

    Args:
        folder: the folder of this evaluation; None keeps nothing.

    Writes are seconds apart, and never take more than about 5 % of the time, however large the pool.
    """

    folder: Path | None
    _next: float = field(default_factory=lambda: time.monotonic() + _FIRST)

    def save_pool(self, content: dict[str, Any], *, force: bool = False, in_flight: bool = False) -> None:
        """Write what is known of every sample, if it is time (or ``force``).

        Tasks that were in flight before are over then, unless they still are ``in_flight``.
        """
        if self._save("pool.pt", lambda: content, force=force) and self.folder is not None and not in_flight:
            for path in self.folder.glob("part-*.pt"):
                path.unlink(missing_ok=True)

    def save_part(self, task: Task, snapshot: Callable[[], Snapshot]) -> None:
        """Write a task in flight, if it is time."""
        self._save(f"part-{task.step}-{task.digest}.pt", lambda: {"tasks": [_packed(task, snapshot())]}, force=False)

    def save_together(self, tasks: list[tuple[Task, Snapshot]]) -> None:
        """Write tasks that are of use only beside each other."""
        first = tasks[0][0]
        name = f"part-{first.step}-{first.first_run}-together.pt"
        self._save(name, lambda: {"tasks": [_packed(*task) for task in tasks]}, force=True)

    def pool(self) -> dict[str, Any] | None:
        """The last saved pool state, if there is one that can be read."""
        return None if self.folder is None else _read(self.folder / "pool.pt")

    def parts(self) -> list[Part]:
        """The tasks in flight that were saved."""
        if self.folder is None or not self.folder.is_dir():
            return []
        found = (_read(path) for path in sorted(self.folder.glob("part-*.pt")))
        return [_unpacked(task) for content in found if content is not None for task in content["tasks"]]

    def clear(self) -> None:
        """Remove the state: the evaluation has ended."""
        if self.folder is not None and self.folder.is_dir():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _save(self, name: str, content: Callable[[], dict[str, Any]], *, force: bool) -> bool:
        """Write a file unless it is too early; returns whether it was written."""
        if self.folder is None or (not force and time.monotonic() < self._next):
            return False
        began = time.monotonic()
        write_atomically(self.folder / name, partial(torch.save, content() | {"version": _VERSION}))
        now = time.monotonic()
        self._next = now + max(_INTERVAL, 20 * (now - began))
        return True


def _packed(task: Task, snapshot: Snapshot) -> dict[str, Any]:
    result = snapshot.result
    return {
        "step": task.step,
        "first_run": task.first_run,
        "parallel_runs": task.parallel_runs,
        "index": torch.from_numpy(task.index),
        "runs": torch.from_numpy(task.runs),
        "stop_at": task.stop_at,
        "iteration": snapshot.iteration,
        "chunks": snapshot.chunks,
        "forward": torch.from_numpy(result.tally.forward),
        "backward": torch.from_numpy(result.tally.backward),
        "flat": torch.from_numpy(result.tally.flat),
        "model_seconds": result.tally.model_seconds,
        "broken": result.broken,
        "points": torch.stack(result.points) if result.points else None,
        "predicted": result.predicted,
        "broken_at": result.broken_at,
        "rejected": result.rejected,
        "judged": result.judged,
        "seconds": result.seconds,
    }


def _unpacked(content: dict[str, Any]) -> Part:
    points = content["points"]
    result = TaskResult(
        tally=Tally(
            content["forward"].numpy(), content["backward"].numpy(), content["flat"].numpy(), content["model_seconds"]
        ),
        broken=content["broken"],
        points=[] if points is None else list(points),
        predicted=content["predicted"],
        broken_at=content["broken_at"],
        rejected=content["rejected"],
        judged=content["judged"],
        seconds=content["seconds"],
    )
    snapshot = Snapshot(content["iteration"], content["chunks"], result)
    return Part(
        content["step"],
        content["first_run"],
        content["parallel_runs"],
        content["index"],
        content["runs"],
        content["stop_at"],
        snapshot,
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):
        # no state, or one cut short by a crash of the machine: the evaluation begins anew
        return None
    return content if content.get("version") == _VERSION else None
