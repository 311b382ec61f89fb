"""A swap of BN values as rows: CSV with one line a network."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from harness.batchnorm.swap import PARTS, Row, Swap
from harness.results.stats import wilson

__all__ = ["swap_cells", "swap_table"]

Cell = str | int | float | None


def swap_cells(row: Row) -> dict[str, Cell]:
    """A row by column: what comes from B (1 or 0 a part), and both accuracies as fractions with 95 % Wilson
    intervals."""
    mix = row.mix
    cells: dict[str, Cell] = {"kind": mix.kind, "layer": mix.layer, "without": int(mix.without), "share": mix.share}
    cells |= {part: int(part in mix.parts) for part in PARTS}
    for name, answers in (("clean", row.clean), ("robust", row.robust)):
        low, high = wilson(int(answers.sum()), len(answers))
        cells |= {f"{name}_acc": float(answers.mean()), f"{name}_acc_low": low, f"{name}_acc_high": high}
    return {**cells, "n": len(row.clean)}


def swap_table(swap: Swap) -> str:
    """All rows in CSV, one line a network; what does not apply is empty."""
    lines = [swap_cells(row) for row in swap.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow(_written(line))
    return text.getvalue()


def _written(line: Mapping[str, Cell]) -> dict[str, str]:
    return {
        name: "" if value is None else f"{value:.6f}" if isinstance(value, float) else str(value)
        for name, value in line.items()
    }
