"""``harness add``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from harness.cli import _options as options
from harness.cli import _verifying
from harness.cli._render import print_json, print_line
from harness.util import paths

__all__ = ["add"]


@click.command()
@click.argument("files", nargs=-1, required=True, type=options.folder, metavar="FILE")
@click.option(
    "--results",
    "folder",
    type=options.folder,
    metavar="DIR",
    help="Folder to take it into; leaderboards/results under $HARNESS_HOME or here if not given.",
)
@_verifying.material
@click.option("--by", default="", metavar="NAME", help="Who verifies it, for the line in the history.")
@click.option(
    "--require-verification", is_flag=True, help="Take in only what could be verified in full, not only not refuted."
)
@options.as_json
def add(files: tuple[Path, ...], folder: Path | None, as_json: bool, **options_: Any) -> None:
    """Take a result from elsewhere into a folder of results, with its verdicts and adversarial examples.

    FILE is a result file. Its schema, its hashes and its verdicts are checked, and then all that 'harness verify'
    checks, as far as weights, images and examples are at hand; what is wrong is not taken in. A result that holds in
    full gets a line in the folder's history that says so, also where it is there already without that line, as an
    interrupted command leaves it. Of several files the first that is refused ends the command.
    """
    from harness import evaluation

    root = folder or paths.results_root()
    shown = []
    for file in files:
        taken = evaluation.take_in(file, root, **options_)
        verified = taken.verification is not None and taken.verification.holds
        if as_json:
            shown.append({"result": str(taken.path.resolve()), "new": taken.is_new, "verified": verified})
            continue
        if taken.verification is not None:
            _verifying.show(taken.verification)
        outcome = "" if taken.verification is None else f", {'verified' if verified else 'not verified'}"
        where = f"taken in as {taken.path}" if taken.is_new else f"{file} is there already, as {taken.path}"
        print_line(f"{where}{outcome}")
    if as_json:
        print_json(shown if len(shown) > 1 else shown[0])
