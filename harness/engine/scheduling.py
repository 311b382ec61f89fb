"""Which worker does what: even shares of samples and runs, and rebalancing near the end of a step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from harness.backends.passes import Tally
from harness.engine.types import Index, Snapshot, Task, TaskResult

__all__ = ["parallel_runs", "rebalance", "shares", "stop_points"]

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


def rebalance(
    task: Task, result: TaskResult, size: int, surviving: np.ndarray[Any, np.dtype[np.bool_]]
) -> list[tuple[Task, Snapshot]]:
    """The unfinished work of a task as up to ``size`` tasks.

    The first of them continues with what was found so far, and accounts for all rows that are finished.

    Args:
        surviving: bool, of the whole pool; rows of samples that were broken meanwhile are left out.
    """
    if result.unfinished is None:
        return []
    pairs = zip(task.index.tolist(), task.runs.tolist(), strict=True)
    position_of = {pair: position for position, pair in enumerate(pairs)}
    iteration, chunks = result.unfinished
    index, runs = (torch.cat([chunk[name] for chunk in chunks]) for name in ("index", "runs"))
    state = {name: torch.cat([chunk["state"][name] for chunk in chunks]) for name in chunks[0]["state"]}
    positions = [position_of[pair] for pair in zip(index.tolist(), runs.tolist(), strict=True)]
    left = torch.from_numpy(surviving)[index].nonzero().squeeze(1)
    finished = sorted(set(position_of.values()) - {positions[row] for row in left.tolist()})
    pieces = []
    for number, rows in enumerate(torch.tensor_split(left, size)):
        chosen = [positions[row] for row in rows.tolist()]
        before = TaskResult(Tally.empty(len(surviving)))
        if number == 0:
            chosen, before = chosen + finished, replace(result, unfinished=None)
        if chosen:
            chunk = {"index": index[rows], "runs": runs[rows], "state": {k: value[rows] for k, value in state.items()}}
            piece = replace(
                task, index=task.index[chosen], runs=task.runs[chosen], logits=task.logits[chosen], stop_at=1.0
            )
            pieces.append((piece, Snapshot(iteration, [chunk] if len(rows) else [], before)))
    return pieces
