"""Which worker does what: even shares of samples and runs, and what is left of a task in several parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from harness.backends.passes import Tally
from harness.engine.types import Assignment, Index, Snapshot, Task, TaskResult

__all__ = ["parallel_runs", "rebalance", "shares", "split", "stop_points"]

Mask = np.ndarray[Any, np.dtype[np.bool_]]

# Rebalance only when one extra sample is a large share of a worker's work, and batches stay large enough.
_FEWEST, _MOST = 4, 16


def parallel_runs(left: int, surviving: int, rows: int) -> int:
    """How many of the ``left`` runs of a step to do side by side, in rounds of equal size.

    Args:
        surviving: samples that are not broken. rows: how many rows all workers together take a step with.
    """
    most = rows // surviving
    rounds = -(-left // max(1, most))
    return -(-left // rounds)


def shares(index: Index, size: int) -> list[Index]:
    """Positions in ``index`` for each worker, as evenly as possible; fewer parts than ``size`` where there are few.

    Values are assigned round-robin, because neighbours may be alike. All occurrences of a value go to one part, except
    at the borders between parts.

    Args:
        index: sorted; a sample as often as it has runs.
    """
    values = np.unique(index)
    assigned = np.concatenate([values[slot::size] for slot in range(size)])
    turn = np.argsort(assigned)[np.searchsorted(values, index)]
    return [part for part in np.array_split(np.argsort(turn, kind="stable"), size) if len(part)]


def stop_points(parts: list[Index], size: int) -> list[float]:
    """The share of its work after which each part stops, so that the rest of it is rebalanced.

    Where a few parts have one row more than the others, they stop when the others end, so that several workers are
    free for each of them.
    """
    most, fewest = max(map(len, parts)), min(map(len, parts))
    larger = sum(len(part) > fewest for part in parts)
    if len(parts) < size or 2 * larger > size or not _FEWEST <= most <= _MOST:
        return [1.0] * len(parts)
    return [1.0 if len(part) == fewest else fewest / most for part in parts]


def rebalance(task: Task, result: TaskResult, size: int, surviving: Mask, *, step_rows: int) -> list[Assignment]:
    """The unfinished work of a task as up to ``size`` tasks; see `split`."""
    if result.unfinished is None:
        return []
    iteration, chunks = result.unfinished
    snapshot = Snapshot(iteration, chunks, replace(result, unfinished=None))
    return split(task, snapshot, size, surviving, step_rows=step_rows)


def split(task: Task, snapshot: Snapshot, size: int, surviving: Mask, *, step_rows: int) -> list[Assignment]:
    """A task in flight as up to ``size`` tasks.

    The first of them continues with what was found so far, and accounts for all rows that are finished.

    Args:
        surviving: bool, of the whole pool; rows of samples that were broken meanwhile are left out.
        step_rows: the most rows of a chunk.
    """
    pairs = zip(task.index.tolist(), task.runs.tolist(), strict=True)
    position_of = {pair: position for position, pair in enumerate(pairs)}
    chunks_of: list[list[dict[str, Any]]] = [[] for _ in range(size)]
    for chunk in _joined(snapshot.chunks):
        left = torch.from_numpy(surviving)[chunk["index"]].nonzero().squeeze(1)
        for chunks, rows in zip(chunks_of, torch.tensor_split(left, size), strict=True):
            chunks += [_rows(chunk, part) for part in torch.split(rows, step_rows) if len(part)]
    chosen_of = [
        [position_of[pair] for chunk in chunks for pair in zip(*_pairs(chunk), strict=True)] for chunks in chunks_of
    ]
    chosen_of[0] += sorted(set(position_of.values()).difference(*chosen_of))
    pieces: list[Assignment] = []
    for number, (chosen, chunks) in enumerate(zip(chosen_of, chunks_of, strict=True)):
        if chosen:
            before = snapshot.result if number == 0 else TaskResult(Tally.empty(len(surviving)))
            piece = replace(
                task, index=task.index[chosen], runs=task.runs[chosen], logits=task.logits[chosen], stop_at=1.0
            )
            pieces.append((piece, Snapshot(snapshot.iteration, chunks, before)))
    return pieces


def _joined(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Saved chunks that need the same iteration next as one; first points are made for one run at a time."""
    groups: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for chunk in chunks:
        run = int(chunk["runs"][0]) if chunk["next"] < 0 else -1
        groups.setdefault((chunk["next"], run), []).append(chunk)
    return [
        {
            "index": torch.cat([chunk["index"] for chunk in group]),
            "runs": torch.cat([chunk["runs"] for chunk in group]),
            "state": {name: torch.cat([chunk["state"][name] for chunk in group]) for name in group[0]["state"]},
            "next": following,
        }
        for (following, _), group in groups.items()
    ]


def _rows(chunk: dict[str, Any], rows: torch.Tensor) -> dict[str, Any]:
    state = {name: value[rows] for name, value in chunk["state"].items()}
    return {"index": chunk["index"][rows], "runs": chunk["runs"][rows], "state": state, "next": chunk["next"]}


def _pairs(chunk: dict[str, Any]) -> tuple[list[int], list[int]]:
    return chunk["index"].tolist(), chunk["runs"].tolist()
