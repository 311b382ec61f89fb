"""Comma-separated values: one header line, accuracies as fractions, empty where nothing is known.

Results that were taken back and files that were left out are the last lines: a name and a reason, and no rank.
"""

from __future__ import annotations

import csv as writer
import io

from harness.results.formats._base import Board, Cell, Format
from harness.util.text import spreadsheet_cell

__all__ = ["csv"]

_LONGEST = 10_000


def _render(board: Board) -> str:
    text = io.StringIO()
    lines = writer.writer(text, lineterminator="\n")
    rows = [board.cells(row) for row in board.rows]
    names = list(rows[0]) if rows else ["checkpoint", "flags"]
    lines.writerow(map(_cell, names))
    rows += [{"checkpoint": line.label, "flags": line.text} for line in board.withdrawn]
    rows += [{"checkpoint": file, "flags": f"left out: {reason}"} for file, reason in board.left_out]
    for row in rows:
        lines.writerow(_cell(row.get(name)) for name in names)
    return text.getvalue()


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, int):
        return str(value)
    return spreadsheet_cell(value, longest=_LONGEST)  # names and flags come from strangers' files


csv = Format(suffix=".csv", render=_render)
