"""Which rows of a leaderboard cannot be told apart.

Every two rows are compared by a paired test on their common samples. Where the verdicts of one of the two are not
known, or are of other samples, they are compared by their counts alone. The p-values of all pairs are Holm-corrected
together, so that at most one board in twenty calls any two equally robust models different.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from harness.results.stats import Floats, holm, mcnemar_p, unpaired_p
from harness.results.store import Survivors

__all__ = ["LEVEL", "Tie", "runs", "ties"]

LEVEL = 0.05
"""Two rows with a corrected p-value below this are told apart."""

_Matrix = np.ndarray[Any, np.dtype[np.bool_]]


class Tie(NamedTuple):
    """What a row cannot be told apart from.

    Attributes:
        group: counted from 0. The first row of a group is its best, and the group's other rows, which follow it,
            cannot be told apart from that one.
        rows: positions of all other rows that this one cannot be told apart from, ascending.
        paired: whether its samples were compared one by one.
    """

    group: int
    rows: tuple[int, ...]
    paired: bool


def ties(counts: Sequence[int], n: int, survivors: Sequence[Survivors | None]) -> list[Tie]:
    """Compare rows, given from the best to the worst.

    Args:
        counts: surviving samples of every row. n: samples that each was evaluated on.
        survivors: which samples those are, where that is known.
    """
    p_values, paired = _p_values(counts, n, survivors)
    size = len(counts)
    upper = np.triu_indices(size, 1)
    tied = np.zeros((size, size), dtype=np.bool_)
    tied[upper] = np.asarray(holm(p_values[upper])) >= LEVEL
    tied |= tied.T
    groups = _groups(tied)
    return [Tie(groups[row], tuple(np.flatnonzero(tied[row]).tolist()), bool(paired[row])) for row in range(size)]


def runs(numbers: Sequence[int]) -> str:
    """Ascending numbers in words: ``2, 4 to 6``."""
    parts = []
    for _, members in groupby(enumerate(dict.fromkeys(numbers)), key=lambda item: item[1] - item[0]):
        run = [number for _, number in members]
        parts.append(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}")
    return ", ".join(parts)


def _p_values(counts: Sequence[int], n: int, survivors: Sequence[Survivors | None]) -> tuple[Floats, _Matrix]:
    """Of every pair ``[k, k]``, and which rows ``[k]`` were compared sample by sample."""
    totals = np.asarray(counts, dtype=np.float64)
    p_values = unpaired_p(totals[:, None], totals[None, :], n)
    first = next((known for known in survivors if known is not None), None)
    common = [
        first is not None and known is not None and np.array_equal(known.index, first.index) for known in survivors
    ]
    paired = np.array(common, dtype=np.bool_)
    robust = [known.robust for known, same in zip(survivors, common, strict=True) if known is not None and same]
    if robust:
        table = np.stack(robust).astype(np.float32)  # counts are exact in it up to 16 million samples
        both = table @ table.T
        alone = table.sum(axis=1)[:, None] - both
        p_values[np.ix_(paired, paired)] = mcnemar_p(alone, alone.T)
    return p_values, paired


def _groups(tied: _Matrix) -> list[int]:
    groups: list[int] = []
    first = 0
    for row in range(len(tied)):
        if row and not tied[first, row]:
            first = row
            groups.append(groups[-1] + 1)
        else:
            groups.append(groups[-1] if groups else 0)
    return groups
