"""Which rows of a leaderboard cannot be told apart.

Every two rows are compared by a paired test on their common samples. Where the verdicts of one of the two are not
known, or are of other samples, they are compared by their counts alone. The p-values of all pairs are Holm-corrected
together, so that at most one board in twenty calls any two equally robust models different.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from harness.results.stats import Floats, holm, mcnemar_p, unpaired_p
from harness.results.store import Survivors

__all__ = ["LEVEL", "Tie", "runs", "ties"]

LEVEL = 0.05
"""Two rows with a corrected p-value below this are told apart."""

_Matrix = np.ndarray[Any, np.dtype[np.bool_]]
_Indices = np.ndarray[Any, np.dtype[np.intp]]


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
    size = len(counts)
    pairs = np.triu_indices(size, 1)
    p_values, paired = _p_values(counts, n, survivors, pairs)
    tied = np.zeros((size, size), dtype=np.bool_)
    tied[pairs] = np.asarray(holm(p_values)) >= LEVEL
    tied |= tied.T
    groups = _groups(tied)
    return [Tie(groups[row], tuple(np.flatnonzero(tied[row]).tolist()), bool(paired[row])) for row in range(size)]


def runs(numbers: Sequence[int]) -> str:
    """Ascending numbers in words: ``2, 4 to 6``."""
    if not numbers:
        return ""
    found = np.unique(np.asarray(numbers, dtype=np.int64))
    breaks = np.flatnonzero(np.diff(found) > 1)
    firsts, lasts = found[[0, *(breaks + 1)]], found[[*breaks, -1]]
    return ", ".join(
        str(first) if first == last else f"{first} to {last}" for first, last in zip(firsts, lasts, strict=True)
    )


def _p_values(
    counts: Sequence[int], n: int, survivors: Sequence[Survivors | None], pairs: tuple[_Indices, _Indices]
) -> tuple[Floats, _Matrix]:
    """Of every pair of rows, and which rows ``[k]`` were compared sample by sample."""
    one, other = pairs
    first = next((known for known in survivors if known is not None), None)
    common = [
        first is not None and known is not None and np.array_equal(known.index, first.index) for known in survivors
    ]
    paired = np.array(common, dtype=np.bool_)
    together = paired[one] & paired[other]
    totals = np.asarray(counts, dtype=np.float64)
    p_values = np.empty(len(one))
    p_values[~together] = unpaired_p(totals[one[~together]], totals[other[~together]], n)
    if first is not None:
        table = np.zeros((len(counts), len(first.robust)), dtype=np.float32)  # exact up to 16 million samples
        for row, known in enumerate(survivors):
            if known is not None and paired[row]:
                table[row] = known.robust
        alone = table.sum(axis=1)[:, None] - table @ table.T
        a, b = one[together], other[together]
        p_values[together] = mcnemar_p(alone[a, b], alone[b, a])
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
