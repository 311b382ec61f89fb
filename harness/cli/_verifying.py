"""What the commands that verify results share: the options that say where model and images are found, and the words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import rich_click as click

from harness.cli import _options as options
from harness.cli._render import percent, print_line
from harness.util.text import counted

if TYPE_CHECKING:
    from harness.evaluation import Verification

__all__ = ["material", "show"]

_WORDS = {True: "holds", False: "WRONG", None: "open"}
_OPTIONS = (
    click.option(
        "--checkpoint", metavar="NAME", help="A path or a registered name; the name in the result if not given."
    ),
    options.checkpoint_dir,
    options.trust_code,
    click.option(
        "--dataset",
        metavar="NAME",
        help="A registered name, FILE.py:NAME, an .npz file or a folder of images; the name in the result if not "
        "given.",
    ),
    click.option(
        "--bn-data",
        metavar="NAME",
        help="The training images of clean and adversarial BN statistics; those that the result names if not given.",
    ),
    options.data_dir,
    options.download,
    options.device,
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        default=250,
        show_default=True,
        metavar="N",
        help="Images in one pass.",
    ),
)

F = TypeVar("F", bound=Callable[..., object])


def material(function: F) -> F:
    """The options of a command that verifies, by the names of `harness.verify`'s arguments."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def show(verification: Verification) -> None:
    """What was found out about a result, for people."""
    print_line(f"{verification.path}")
    for check in verification.checks:
        print_line(f"  {_WORDS[check.holds]:5}  {check.name:9} {check.text}")
    result = verification.result
    if result is not None and verification.holds:
        print_line(
            f"  so {result.label} has a robust accuracy of at most {percent(result.robust_acc)} on "
            f"{counted(result.n, 'image')} under {result.threat.norm} {result.threat.eps}"
        )
