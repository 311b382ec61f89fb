"""Comma-separated values: one header line, accuracies as fractions, empty where nothing is known."""

from __future__ import annotations

import csv as writer
import io

from harness.results.formats._base import Board, Cell, Format

__all__ = ["csv"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def _render(board: Board) -> str:
    text = io.StringIO()
    lines = writer.writer(text, lineterminator="\n")
    rows = [board.cells(row) for row in board.rows]
    for names in rows[:1]:
        lines.writerow(_cell(name) for name in names)
    for row in rows:
        lines.writerow(_cell(value) for value in row.values())
    return text.getvalue()


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6f}"
    if isinstance(value, int):
        return str(value)
    # a spreadsheet runs what looks like a formula; names and flags come from strangers' files
    return f"'{value}" if value.lstrip(" ").startswith(_FORMULA) else value


csv = Format(suffix=".csv", render=_render)
