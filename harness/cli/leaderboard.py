"""``harness leaderboard``."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from harness.cli import _options as options
from harness.util import paths
from harness.util.files import check_writable

__all__ = ["leaderboard"]


@click.command()
@click.option(
    "--results",
    "folders",
    type=options.folder,
    multiple=True,
    metavar="DIR",
    help="Folder of result files; leaderboards/results under $HARNESS_HOME or here if not given. Several are merged: "
    "may be given several times.",
)
@click.option(
    "--output",
    type=options.folder,
    metavar="DIR",
    help="Where the leaderboards go; leaderboards under $HARNESS_HOME or here if not given.",
)
@click.option(
    "--format",
    "names",
    multiple=True,
    metavar="NAME",
    help="A format, such as csv or markdown, or FILE.py:NAME; may be given several times. All formats if not given.",
)
@options.as_json
def leaderboard(folders: tuple[Path, ...], output: Path | None, names: tuple[str, ...], as_json: bool) -> None:
    """Rank the stored results and write one leaderboard per data set and threat model.

    The files are a pure function of the results: the same bytes for the same results. Runs with
    --limit go to files of their own. A result that was retracted or superseded is not ranked; its board says so.
    """
    from harness.cli import _boards, _render

    folder = paths.leaderboards_root() if output is None else output
    check_writable(folder)
    boards = _boards.write_all(folders or paths.results_root(), folder, names)
    if as_json:
        _render.print_json(
            [
                {
                    "name": board.name,
                    "dataset": board.dataset,
                    "split": board.split,
                    "threat": f"{board.norm}:{board.eps}",
                    "size": board.size,
                    "partial": board.partial,
                    "ranked_by": board.ranked_by,
                    "files": [str(path.resolve()) for path in files],
                    "rows": [board.cells(row) for row in board.rows],
                    "history": [line.model_dump() for line in board.history],
                    "left_out": [left_out._asdict() for left_out in board.left_out],
                }
                for board, files in boards
            ]
        )
        return
    for board, files in boards:
        _boards.show(board, files)
