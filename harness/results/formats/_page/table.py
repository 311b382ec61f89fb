"""The table of a leaderboard's page: columns, cells, and what each column sorts by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from harness.results.formats._base import Accuracy, Board, Row
from harness.results.formats._page.markup import Child, Markup, element, join
from harness.results.measures import ranking
from harness.util.text import counted

__all__ = ["SHOWN", "Column", "anchor", "columns", "table"]

SHOWN = 50
"""Rows that are shown at first; a longer table takes seconds to lay out."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: its heading. kind: the class of its heading, which says at what width of the page it is shown; the script
            gives it to the cells of the rows that it shows.
        cell: what a row shows. value: what it sorts by. accuracy: whether that is a fraction that has an interval.
    """

    title: str
    kind: str
    cell: Callable[[Row], Child]
    value: Callable[[Row], float | str | None]
    accuracy: bool = False


def columns(board: Board) -> tuple[Column, ...]:
    """The columns of a board; the measure that ranks it comes before the others."""
    measures = [
        Column(
            measure.label,
            "" if place == 0 else "medium",
            lambda row, name=measure.name: _accuracy(row.robust.get(name)),  # type: ignore[misc]
            lambda row, name=measure.name: _value(row.robust.get(name)),  # type: ignore[misc]
            accuracy=True,
        )
        for place, measure in enumerate(ranking(board.measures))
    ]
    if board.shows_best_known:
        measures.append(
            Column(
                "Best known",
                "medium",
                lambda row: _accuracy(row.best_known),
                lambda row: _value(row.best_known),
                accuracy=True,
            )
        )
    return (
        Column("Rank", "", _rank, lambda row: row.rank),
        Column("Checkpoint", "name", lambda row: row.checkpoint, lambda row: row.checkpoint),
        Column("Regime", "medium", lambda row: row.regime, lambda row: row.regime),
        Column("Parent", "medium", lambda row: row.parent, lambda row: row.parent),
        Column("Architecture", "wide", lambda row: row.architecture, lambda row: row.architecture),
        *measures,
        Column("Clean", "", lambda row: _accuracy(row.clean), lambda row: _value(row.clean), accuracy=True),
        Column("Flags", "medium", _flags, lambda row: len(row.flags)),
        Column("Parameters", "widest", lambda row: f"{row.parameters:,}", lambda row: row.parameters),
        Column("Trained", "widest", _share, lambda row: row.trained_share and round(row.trained_share, 6)),
        Column("Images", "widest", lambda row: f"{row.n:,}", lambda row: row.n),
    )


def table(board: Board, shown: tuple[Column, ...]) -> Markup:
    """The whole table, to be read without the script as well, which sorts and filters it, opens rows and draws bars."""
    head = element("tr", *(_heading(place, column) for place, column in enumerate(shown)))
    body = [_line(row, place, first, shown) for place, (row, first) in enumerate(_with_starts(board.rows))]
    caption = element("caption", f"{counted(len(board.rows), 'model')}, ranked by {board.ranked_by}", class_="hidden")
    return element("table", caption, element("thead", head), element("tbody", *body), id="board", class_="by-rank")


def anchor(row: Row) -> str:
    """The fragment that a link to a row has."""
    return f"row-{row.deciding.record_id[:16]}"


def _with_starts(rows: tuple[Row, ...]) -> Iterator[tuple[Row, bool]]:
    """Every row, and whether a group begins with it."""
    yield from ((row, True) for row in rows[:1])
    for before, row in pairwise(rows):
        yield row, not row.grouped_with(before)


def _heading(place: int, column: Column) -> Markup:
    sort = "ascending" if place == 0 else None
    return element(
        "th", element("button", column.title, type="button"), scope="col", class_=column.kind or None, aria_sort=sort
    )


def _line(row: Row, place: int, first: bool, shown: tuple[Column, ...]) -> Markup:
    cells = (_name(row, column) if column.kind == "name" else element("td", column.cell(row)) for column in shown)
    return element("tr", *cells, id=anchor(row), class_="start" if first else None, hidden=place >= SHOWN)


def _name(row: Row, column: Column) -> Markup:
    button = element("button", column.cell(row))
    return element("th", button, element("small", row.regime or ""), scope="row")


def _rank(row: Row) -> Markup:
    if not row.tied_with:
        return join(str(row.rank))
    ranks = (row.rank, *row.tied_with)
    low, high = min(ranks), max(ranks)
    return join(str(row.rank), element("small", f"{low}–{high}" if low < high else f"= {low}"))


def _accuracy(accuracy: Accuracy | None) -> Child:
    if accuracy is None:
        return None
    interval = element("small", f"{100 * accuracy.low:.1f}–{100 * accuracy.high:.1f}")
    return join(f"{100 * accuracy.value:.1f} ", interval)


def _value(accuracy: Accuracy | None) -> float | None:
    return None if accuracy is None else round(accuracy.value, 6)


def _share(row: Row) -> str | None:
    return None if row.trained_share is None else f"{100 * row.trained_share:.2f} %"


def _flags(row: Row) -> Markup:
    codes = {flag.code: flag.severity for flag in row.flags}
    return join(*(element("span", code, class_=f"chip {severity}") for code, severity in codes.items()))
