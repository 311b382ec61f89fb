"""What a leaderboard holds, whatever it is written as."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING

from harness.audit.flags import Flag
from harness.errors import InvalidInput
from harness.results.history import Entry, result_key
from harness.results.measures import Measure, ranking
from harness.results.record import Result
from harness.results.store import LeftOut
from harness.results.ties import LEVEL, runs
from harness.util.text import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BEST_KNOWN", "BEST_KNOWN_MEANS", "CLEAN", "Accuracy", "Board", "Cell", "CurvePoint", "Format", "Row"]

Cell = str | int | float | None
"""One value of a table; None where nothing is known."""

CLEAN = "clean"
"""What accuracy without attack is called among the names of measures; none of them has this name."""


BEST_KNOWN = "best_known"
"""What the share of samples that no result broke is called among the names of measures."""

BEST_KNOWN_MEANS = "Best known: what no evaluation of the same model on the same images has broken, by whatever suite."
"""For boards whose column of it is shown."""


@dataclass(frozen=True)
class Accuracy:
    """A fraction of samples with its 95 % Wilson interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CurvePoint:
    """Robust accuracy at one radius; ``eps`` is the text that the radius was written as."""

    eps: str
    radius: float
    accuracy: Accuracy


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        robust: robust accuracy by the name of its measure, for those of the board that were evaluated.
        ranked_by: the name of the measure whose figure decides the rank; None where only clean accuracy is known.
        results: that the figures are of, by the name of the measure; of the clean suite under ``clean``.
        group: number of the group of rows that cannot be told apart from its first row.
        tied_with: ranks of the other rows that this one cannot be told apart from.
        paired: whether that was found by comparing samples one by one.
        curve: what the same model was found to have on the same images by the suite that ranks it, at every radius
            at which it was evaluated, ascending.
        best_known: the share of samples that no result of this model, whatever the suite, seed and name, has broken;
            None where no result says which samples survive.
    """

    rank: int
    checkpoint: str
    regime: str | None
    parent: str | None
    architecture: str
    parameters: int
    trained_share: float | None
    clean: Accuracy
    robust: Mapping[str, Accuracy]
    ranked_by: str | None
    n: int
    flags: tuple[Flag, ...]
    results: Mapping[str, Result]
    group: int = 0
    tied_with: tuple[int, ...] = ()
    paired: bool = False
    curve: tuple[CurvePoint, ...] = ()
    best_known: Accuracy | None = None

    @property
    def deciding(self) -> Result:
        """The result that decides the rank."""
        return self.results[self.ranked_by or CLEAN]

    @cached_property
    def tied_in_words(self) -> str:
        """``tied_with``, such as ``2, 4 to 6``; every format shows it."""
        return runs(self.tied_with)

    @property
    def images(self) -> str:
        """The hash of the images that it was evaluated on; ranks and groups are those among rows of equal images."""
        return self.deciding.dataset.sha256

    def grouped_with(self, other: Row) -> bool:
        """Whether both are of one group."""
        return (self.images, self.ranked_by, self.group) == (other.images, other.ranked_by, other.group)


@dataclass(frozen=True, repr=False)
class Board:
    """The rows of one data set under one threat model.

    Attributes:
        name: of the file, without its ending.
        dataset, split, norm, eps: what was evaluated.
        size: samples in the whole split.
        partial: whether the rows are runs on fewer samples than that.
        measures: what robust accuracy was measured by, in the order of the columns.
        rows: in order of rank; in a partial board ranks restart for every set of samples.
        left_out: files of the folder that hold no result to be trusted.
        history: what has happened to results of this board, in the order of time.
    """

    name: str
    dataset: str
    split: str
    norm: str
    eps: str
    size: int
    partial: bool
    measures: tuple[Measure, ...]
    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...] = ()
    history: tuple[Entry, ...] = ()

    @property
    def withdrawn(self) -> tuple[Entry, ...]:
        """The lines about results that count no longer."""
        return tuple(entry for entry in self.history if entry.withdraws)

    @cached_property
    def _verified(self) -> dict[str, list[Entry]]:
        found: dict[str, list[Entry]] = {}
        for entry in self.history:
            if entry.action == "verified":
                found.setdefault(entry.result, []).append(entry)
        return found

    def verified(self, result: Result) -> tuple[Entry, ...]:
        """The lines that say that a result was verified."""
        return tuple(self._verified.get(result_key(result), ()))

    @property
    def ranked_by(self) -> str:
        """How rows are ranked, in words that follow "ranked by"."""
        order = ", then ".join([*(measure.label for measure in ranking(self.measures)), "clean accuracy"])
        if self.measures and not any(measure.standard for measure in self.measures):
            return f"{order} (no result is of a standard suite, pgd or autoattack)"
        return order

    @property
    def shows_best_known(self) -> bool:
        """Whether a row's best known figure is below all those of single suites, so that a column tells something."""
        return any(
            row.best_known and row.best_known.value < min(accuracy.value for accuracy in row.robust.values())
            for row in self.rows
            if row.robust
        )

    @property
    def told_apart_by(self) -> str:
        """How rows are grouped, as a sentence."""
        paired = {row.paired for row in self.rows}
        tests = {
            frozenset({True}): "an exact McNemar test on the common samples",
            frozenset({False}): "an unpaired test of the counts, as no verdicts of single samples are known",
        }
        both = "an exact McNemar test on the common samples (an unpaired one of the counts where only these are known)"
        return (
            "Rows of a group cannot be told apart from its first row; two rows that are ranked by the same suite are "
            f"told apart by {tests.get(frozenset(paired), both)}, Holm-corrected for all pairs, at {100 * LEVEL:.0f} %."
        )

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a table, indexed by rank, with the columns of `cells`."""
        import pandas as pd

        rows = [self.cells(row) for row in self.rows]
        return pd.DataFrame(rows).set_index("rank") if rows else pd.DataFrame(index=pd.Index([], name="rank"))

    def __repr__(self) -> str:
        return f"<Board {self.name}: {counted(len(self.rows), 'model')}, ranked by {self.ranked_by}>"

    def _repr_html_(self) -> str:
        """The board as a table, for notebooks."""
        if not self.rows:
            return f"<p>{escape(repr(self))}</p>"
        shown = ["checkpoint", "regime", "clean_acc", *(f"{m.name}_acc" for m in self.measures), "n", "flags"]
        return str(self.to_pandas()[shown].to_html(float_format="{:.1%}".format))

    def cells(self, row: Row) -> dict[str, Cell]:
        """A row as plain values by column name, the same columns for every row; accuracies are fractions."""
        accuracies = {CLEAN: row.clean} | {m.name: row.robust.get(m.name) for m in self.measures}
        accuracies |= {BEST_KNOWN: row.best_known}
        return {
            "rank": row.rank,
            "group": row.group,
            "checkpoint": row.checkpoint,
            "regime": row.regime,
            "parent": row.parent,
            "architecture": row.architecture,
            "parameters": row.parameters,
            "trained_share": row.trained_share,
            **{
                f"{name}_acc{end}": getattr(accuracy, part) if accuracy else None
                for name, accuracy in accuracies.items()
                for end, part in (("", "value"), ("_low", "low"), ("_high", "high"))
            },
            "n": row.n,
            "tied_with": row.tied_in_words,
            "ranked_by": row.ranked_by,
            "tie_test": "paired" if row.paired else "unpaired",
            "flags": "; ".join(map(str, row.flags)),
        }


@dataclass(frozen=True)
class Format:
    """A way to write a board.

    Attributes:
        suffix: of the file, with its dot.
        render: the whole file as text; the same text for the same board.

    Raises:
        InvalidInput: a suffix that could lead out of the folder of the boards.
    """

    suffix: str
    render: Callable[[Board], str]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"(\.[A-Za-z0-9]+)+", self.suffix):
            raise InvalidInput(f"the suffix of a format is a dot with letters or digits, got {self.suffix!r}")
