"""``harness supersede``."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from harness.cli import _options as options
from harness.cli._render import print_line

__all__ = ["supersede"]


@click.command()
@click.argument("old", type=options.folder, metavar="OLD")
@click.argument("new", type=options.folder, metavar="NEW")
@click.option("--reason", required=True, metavar="TEXT", help="Why; every leaderboard shows it.")
@click.option("--by", default="", metavar="NAME", help="Who says so.")
def supersede(old: Path, new: Path, reason: str, by: str) -> None:
    """Let a result take the place of another: the old one counts no longer, and leaderboards say why.

    OLD and NEW are result files in one folder, of the same data set, images, threat model and suite, and of the same
    model: of the same network, whatever it is called, or of another one under the same name, such as one that was
    trained again. Records of one run may differ in their names. Both stay where they are; a line is added to the
    history beside them.
    """
    from harness.boards import withdrawal

    print_line(withdrawal.supersede(old, new, reason=reason, by=by).text)
