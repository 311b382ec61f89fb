"""``harness verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.exceptions import Exit

from harness.cli import _options as options
from harness.cli._render import percent, print_json, print_line

if TYPE_CHECKING:
    from harness.evaluation import Verification

__all__ = ["verify"]

_WORDS = {True: "holds", False: "WRONG", None: "open"}


@click.command()
@click.argument("results", nargs=-1, required=True, type=options.folder, metavar="RESULT")
@click.option("--checkpoint", metavar="NAME", help="A path or a registered name; the name in the result if not given.")
@options.checkpoint_dir
@options.trust_code
@click.option(
    "--dataset",
    metavar="NAME",
    help="A registered name, FILE.py:NAME, an .npz file or a folder of images; the name in the result if not given.",
)
@click.option(
    "--bn-data",
    metavar="NAME",
    help="The training images of clean and adversarial BN statistics; those that the result names if not given.",
)
@options.data_dir
@options.download
@options.device
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=250, show_default=True, metavar="N", help="Images in one pass."
)
@options.as_json
def verify(results: tuple[Path, ...], as_json: bool, **material: Any) -> None:
    """Check stored results with forward passes alone: nothing is attacked again.

    RESULT is a result file; several may be given. Weights and data must be those that it says, every sample must be
    classified as it says without attack, and every sample that it counts as broken must have an adversarial example
    that lies within the radius and in [0, 1] and is misclassified. The robust accuracy is then an upper bound on that
    of the model. Exits with 0 if all of it holds, with 1 if anything is wrong or could not be checked.
    """
    from harness import evaluation

    found = []
    for path in results:
        verification = evaluation.verify(path, **material)
        found.append(verification)
        if not as_json:
            _show(verification)
    if as_json:
        shown = [_object(verification) for verification in found]
        print_json(shown if len(shown) > 1 else shown[0])
    if not all(verification.holds for verification in found):
        raise Exit(1)


def _show(verification: Verification) -> None:
    print_line(f"{verification.path}")
    for check in verification.checks:
        print_line(f"  {_WORDS[check.holds]:5}  {check.name:9} {check.text}")
    result = verification.result
    if result is not None and verification.holds:
        print_line(
            f"  so {result.label} has a robust accuracy of at most {percent(result.robust_acc)} on these "
            f"{result.n:,} images under {result.threat.norm} {result.threat.eps}"
        )
    print_line()


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
