"""The state of an evaluation in flight, so that a killed one continues where it was.

A folder per evaluation holds

- ``clean-*.pt``: the model's output on clean images, as far as it is known, until all of it is;
- ``pool.pt``: what is known of every sample between two rounds of tasks;
- ``part-*.pt``: the tasks of the round that begins there, as far as they have come.

Each kind is written on its own clock, by the process that knows it: parts by the worker that runs the task, the pool
by the process that hands tasks out, at the end of a round or, if it is not due then, while the next round runs. So a
part may be there before the pool that it belongs to, and is of use as soon as that is there too. Tasks that rely on
each other are written in one file. Files are replaced atomically and hold tensors and plain values only; one that is
damaged, of another version or of another round is ignored, which costs time and changes nothing. The folder is
removed by whoever has stored the result.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, Literal

import numpy as np
import torch

from harness.backends.passes import Tally
from harness.engine.types import Assignment, Index, Snapshot, Task, TaskResult
from harness.errors import CheckpointError, StorageError
from harness.util.files import write_atomically
from harness.weights import read_plain

__all__ = ["CleanLogits", "Part", "State"]

_VERSION = 9

_INTERVAL = 2.5
"""Seconds between two writes of a kind. Work that was done under a pool not yet written is lost with a part not yet
written, so that a kill costs a worker up to twice that, and the step that it is at."""

_MOST_OF_THE_TIME = 0.05
"""Writing takes at most this share of the time, however large the state and slow the disk."""

Kind = Literal["clean", "pool", "part"]


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


@dataclass(frozen=True)
class CleanLogits:
    """What is known of the model's output on clean images.

    Attributes:
        index: rows of the pool, sorted; logits: float ``[m, k]`` of each.
        seconds: spent in the model for them.
    """

    index: Index
    logits: torch.Tensor
    seconds: float


@dataclass
class State:
    """The saved state of one evaluation, as one process sees it.

    Args:
        folder: the folder of this evaluation; None keeps nothing.
    """

    folder: Path | None
    _due: dict[Kind, float] = field(init=False)

    def __post_init__(self) -> None:
        now = time.monotonic()
        self._due = {"clean": now + _INTERVAL, "pool": now + _INTERVAL, "part": now + _INTERVAL}

    def save_clean(self, content: Callable[[], CleanLogits]) -> None:
        """Write what a worker knows of the output on clean images, if that is due."""
        if self._is_due("clean"):
            known = content()
            digest = hashlib.blake2b(known.index[:1].tobytes(), digest_size=8).hexdigest()
            packed = {"index": torch.from_numpy(known.index), "logits": known.logits, "seconds": known.seconds}
            self._write("clean", f"clean-{digest}.pt", packed)

    def save_pool(self, content: Callable[[], dict[str, Any]], *, force: bool = False, in_flight: bool = False) -> bool:
        """Write what is known of every sample, if that is due (or ``force``); returns whether it was written.

        Args:
            in_flight: tasks of the round that begins here are at work, whose parts are kept.
        """
        if not (force or self._is_due("pool")) or not self._write("pool", "pool.pt", content()):
            return False
        self._remove("clean-*.pt")
        if not in_flight:
            self._remove("part-*.pt")
        return True

    def save_part(self, task: Task, snapshot: Callable[[], Snapshot]) -> None:
        """Write a task in flight, if that is due."""
        if self._is_due("part"):
            self._write(
                "part", f"{_round(task.step, task.first_run)}-{task.digest}.pt", _together([(task, snapshot())])
            )

    def save_together(self, assignments: list[Assignment]) -> None:
        """Write all tasks of a round, which rely on each other; they replace all parts that there are."""
        first = assignments[0][0]
        name = f"{_round(first.step, first.first_run)}-together.pt"
        if self._write("part", name, _together(assignments)):
            self._remove("part-*.pt", but=name)

    def clean(self) -> CleanLogits | None:
        """What is known of the output on clean images."""
        found = [content for path in self._files("clean-*.pt") if (content := _read(path, _CLEAN)) is not None]
        if not found:
            return None
        index = np.concatenate([content["index"].numpy() for content in found])
        index, places = np.unique(index, return_index=True)
        logits = torch.cat([content["logits"] for content in found])[torch.from_numpy(places)]
        return CleanLogits(index, logits, sum(content["seconds"] for content in found))

    def pool(self) -> dict[str, Any] | None:
        """The last saved pool state, if there is one that can be read."""
        return None if self.folder is None else _read(self.folder / "pool.pt", _POOL)

    def parts(self, step: int, first_run: int) -> list[Part]:
        """The tasks of a round in flight that were saved; those of other rounds are removed."""
        for path in self._files("part-*.pt"):
            if not path.name.startswith(f"{_round(step, first_run)}-"):
                path.unlink(missing_ok=True)
        found = (_read(path, {"tasks": list}) for path in self._files("part-*.pt"))
        tasks = [task for content in found if content is not None for task in content["tasks"]]
        return [_unpacked(task) for task in tasks if _fits(task, _TASK)]

    def check_own(self) -> None:
        """Find out before a run that the state is another user's, who could have put anything into it.

        Raises:
            StorageError: it is.
        """
        if self.folder is None or not self.folder.exists() or not hasattr(os, "getuid"):
            return
        owners = {path.stat().st_uid for path in (self.folder, *self._files("*.pt"))}
        if owners - {os.getuid()}:
            raise StorageError(
                f"the saved state {self.folder} is another user's: remove it, or choose another folder with --output"
            )

    def clear_if_older(self, result: Path) -> None:
        """Remove the state of a run whose result was stored, and which was killed before it could remove it.

        A state that was written after ``result`` is of a run that goes on, or whose own result is not stored yet.
        """
        with suppress(FileNotFoundError):
            if self.folder is not None and (self.folder / "pool.pt").stat().st_mtime_ns <= result.stat().st_mtime_ns:
                self.clear()

    def clear(self) -> None:
        """Remove the state: the result is stored, or the state is of no use."""
        if self.folder is not None and self.folder.is_dir():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _is_due(self, kind: Kind) -> bool:
        return self.folder is not None and time.monotonic() >= self._due[kind]

    def _write(self, kind: Kind, name: str, content: dict[str, Any]) -> bool:
        if self.folder is None:
            return False
        began = time.monotonic()
        write_atomically(self.folder / name, partial(torch.save, content | {"version": _VERSION}))
        now = time.monotonic()
        self._due[kind] = now + max(_INTERVAL, (now - began) / _MOST_OF_THE_TIME)
        return True

    def _files(self, pattern: str) -> list[Path]:
        return [] if self.folder is None else sorted(self.folder.glob(pattern))

    def _remove(self, pattern: str, *, but: str = "") -> None:
        for path in self._files(pattern):
            if path.name != but:
                path.unlink(missing_ok=True)


def _round(step: int, first_run: int) -> str:
    return f"part-{step}-{first_run}"


def _together(assignments: list[Assignment]) -> dict[str, Any]:
    return {"tasks": [_packed(task, snapshot) for task, snapshot in assignments if snapshot is not None]}


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
        "mended": torch.from_numpy(result.tally.mended),
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
            content["forward"].numpy(),
            content["backward"].numpy(),
            content["flat"].numpy(),
            content["mended"].numpy(),
            content["model_seconds"],
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


def _read(path: Path, kinds: Mapping[str, type | UnionType]) -> dict[str, Any] | None:
    """The fields of a file, if all are there and of their types; a file of another version, or damaged, is no state."""
    try:
        content = read_plain(path)
    except CheckpointError:
        return None
    return content if type(content) is dict and content.get("version") == _VERSION and _fits(content, kinds) else None


def _fits(content: object, kinds: Mapping[str, type | UnionType]) -> bool:
    return isinstance(content, dict) and all(
        isinstance(content.get(name, _MISSING), kind) for name, kind in kinds.items()
    )


_MISSING = object()
_TASK: Mapping[str, type | UnionType] = {
    **dict.fromkeys(("step", "first_run", "parallel_runs", "iteration", "rejected", "judged"), int),
    **dict.fromkeys(("index", "runs", "forward", "backward", "flat", "mended"), torch.Tensor),
    **dict.fromkeys(("stop_at", "model_seconds", "seconds"), float | int),
    **dict.fromkeys(("chunks", "broken", "predicted", "broken_at"), list),
    "points": torch.Tensor | None,
}
_POOL: Mapping[str, type | UnionType] = {
    **dict.fromkeys(("logits", "broken", "points", "broken_by", "adv_pred", "forward", "backward"), torch.Tensor),
    **dict.fromkeys(("records", "flags", "backend", "plain_from"), str),
    **dict.fromkeys(("seconds", "position"), list),
    "micro_batch": int,
    "open": dict,
}
_CLEAN: Mapping[str, type | UnionType] = {"index": torch.Tensor, "logits": torch.Tensor, "seconds": float | int}
