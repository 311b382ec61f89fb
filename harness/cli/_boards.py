"""Reading results, writing boards, showing them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness import boards
from harness.boards import Folders
from harness.cli._render import print_line, print_table
from harness.results import leaderboard as ranking
from harness.results.formats import Accuracy, Board
from harness.util.text import counted, printable

__all__ = ["show", "write_all"]


def write_all(results: Folders, output: Path, names: Sequence[str] = ()) -> list[tuple[Board, list[Path]]]:
    """Rank the results in some folders and write every board; returns the boards with their files.

    Args:
        names: of the formats; every registered one if empty.

    Raises:
        ResultError: no results that can be ranked.
        UnknownName, InvalidInput: no such format.
        StorageError: a folder that cannot be written.
    """
    return [(board, ranking.write(board, output, names)) for board in boards.leaderboard(results, formats=names)]


def show(board: Board, paths: list[Path]) -> None:
    """A board for people, on stdout."""
    kind = "partial runs, ranked apart" if board.partial else counted(board.size, "image")
    _print_one(f"{board.dataset} {board.split}, {board.norm} {board.eps} ({kind})")
    labels = [measure.label for measure in board.measures]
    header = ("rank", "checkpoint", "regime", "clean", *labels, "n", "flags")
    rows = [
        (
            row.rank,
            row.checkpoint,
            row.regime,
            _percent(row.clean),
            *(_percent(row.robust.get(measure.name)) for measure in board.measures),
            row.n,
            "; ".join(map(str, row.flags)),
        )
        for row in board.rows
    ]
    print_table(header, rows, right=("rank", "clean", *labels, "n"))
    _print_one(f"ranked by {board.ranked_by}")
    for line in board.withdrawn:
        _print_one(f"taken back: {line.text}")
    for _, reason in board.left_out:
        _print_one(f"left out: {reason}")
    for path in paths:
        print_line(f"written {path}")
    print_line()


def _print_one(text: str) -> None:
    """One line, whatever a result's texts hold: a line break in a name must not make a second one."""
    print_line(printable(text, longest=1000))


def _percent(accuracy: Accuracy | None) -> str | None:
    if accuracy is None:
        return None
    return f"{100 * accuracy.value:.1f} ({100 * accuracy.low:.1f}–{100 * accuracy.high:.1f})"
