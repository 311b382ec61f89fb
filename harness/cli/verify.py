"""``harness verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.exceptions import Exit

from harness.cli import _options as options
from harness.cli import _verifying
from harness.cli._render import print_json, print_line

if TYPE_CHECKING:
    from harness.evaluation import Verification

__all__ = ["verify"]


@click.command()
@click.argument("results", nargs=-1, required=True, type=options.folder, metavar="RESULT")
@_verifying.material
@click.option(
    "--by",
    metavar="NAME",
    help="Leave a line in the history beside each result that holds: NAME verified it. Leaderboards show it.",
)
@options.as_json
def verify(results: tuple[Path, ...], by: str | None, as_json: bool, **material: Any) -> None:
    """Check stored results with forward passes alone: nothing is attacked again.

    RESULT is a result file; several may be given. Weights and data must be those that it says, every sample must be
    classified as it says without attack, and every sample that it counts as broken must have an adversarial example
    that lies within the radius and in [0, 1] and is misclassified. The robust accuracy is then an upper bound on that
    of the model. Exits with 0 if all of it holds, with 1 if anything is wrong or could not be checked.
    """
    from harness import evaluation
    from harness.results import history

    if by is not None:  # before any work
        history.check_by(by)
        for folder in {path.parent for path in results if path.parent.is_dir()}:
            history.read(folder)
    found = []
    for path in results:
        verification = evaluation.verify(path, **material)
        found.append(verification)
        if not as_json:
            _verifying.show(verification)
        if by is not None and verification.result is not None and verification.holds:
            noted = history.add(path.parent, history.entry("verified", path, verification.result, by=by))
            if not as_json:
                print_line(f"  noted in {noted}")
        if not as_json:
            print_line()
    if as_json:
        shown = [_object(verification) for verification in found]
        print_json(shown if len(shown) > 1 else shown[0])
    if not all(verification.holds for verification in found):
        raise Exit(1)


def _object(verification: Verification) -> dict[str, Any]:
    result = verification.result
    stated = {} if result is None else {"n": result.n, "clean_acc": result.clean_acc, "robust_acc": result.robust_acc}
    return {
        "result": str(verification.path.resolve()),
        "holds": verification.holds,
        "checks": [check._asdict() for check in verification.checks],
        **stated,
        "seconds": verification.seconds,
    }
