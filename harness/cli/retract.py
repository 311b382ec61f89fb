"""``harness retract``."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from harness.cli import _options as options
from harness.cli._render import print_line

__all__ = ["retract"]


@click.command()
@click.argument("result", type=options.folder, metavar="RESULT")
@click.option("--reason", required=True, metavar="TEXT", help="Why; every leaderboard shows it.")
@click.option("--by", default="", metavar="NAME", help="Who says so.")
def retract(result: Path, reason: str, by: str) -> None:
    """Take a result back: it counts no longer, and leaderboards say why.

    RESULT is a result file. It stays where it is; a line is added to the history beside it.
    """
    from harness.boards import withdrawal

    print_line(withdrawal.retract(result, reason=reason, by=by).text)
