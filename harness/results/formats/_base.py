"""What a leaderboard holds, whatever it is written as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.audit.flags import Flag

__all__ = ["COLUMNS", "Accuracy", "Board", "Cell", "Format", "Row"]

Cell = str | int | float | None
"""One value of a table; None where nothing is known."""

COLUMNS = (
    "rank",
    "checkpoint",
    "regime",
    "parent",
    "architecture",
    "parameters",
    "trained_share",
    "clean_acc",
    "clean_acc_low",
    "clean_acc_high",
    "pgd_acc",
    "pgd_acc_low",
    "pgd_acc_high",
    "autoattack_acc",
    "autoattack_acc_low",
    "autoattack_acc_high",
    "n",
    "flags",
)


@dataclass(frozen=True)
class Accuracy:
    """A fraction of samples with its 95 % Wilson interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One checkpoint; an accuracy is None where no such evaluation exists."""

    rank: int
    checkpoint: str
    regime: str | None
    parent: str | None
    architecture: str
    parameters: int
    trained_share: float | None
    clean: Accuracy
    pgd: Accuracy | None
    autoattack: Accuracy | None
    n: int
    flags: tuple[Flag, ...]

    def cells(self) -> dict[str, Cell]:
        """The row under the names of `COLUMNS`; accuracies are fractions."""
        known: dict[str, Cell] = {
            "rank": self.rank,
            "checkpoint": self.checkpoint,
            "regime": self.regime,
            "parent": self.parent,
            "architecture": self.architecture,
            "parameters": self.parameters,
            "trained_share": self.trained_share,
            "n": self.n,
            "flags": "; ".join(map(str, self.flags)),
        }
        for name, accuracy in (("clean", self.clean), ("pgd", self.pgd), ("autoattack", self.autoattack)):
            known[f"{name}_acc"] = accuracy.value if accuracy else None
            known[f"{name}_acc_low"] = accuracy.low if accuracy else None
            known[f"{name}_acc_high"] = accuracy.high if accuracy else None
        return {column: known[column] for column in COLUMNS}


@dataclass(frozen=True)
class Board:
    """The rows of one data set under one threat model.

    Attributes:
        name: of the file, without its ending.
        dataset, split, norm, eps: what was evaluated.
        size: samples in the whole split.
        partial: whether the rows are runs on fewer samples than that.
        rows: in order of rank; in a partial board ranks restart for every set of samples.
    """

    name: str
    dataset: str
    split: str
    norm: str
    eps: str
    size: int
    partial: bool
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Format:
    """A way to write a board.

    Attributes:
        suffix: of the file, with its dot.
        render: the whole file as text; the same text for the same board.
    """

    suffix: str
    render: Callable[[Board], str]
