"""``harness demo``."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from harness.util import paths
from harness.util.files import check_writable

__all__ = ["demo"]

_NAME = "bn_ft_demo"
# another seed than that of the shipped bn_ft, so that the new model is one of its own
_TRAINING = ("--regime", "bn-ft", "--parent", "natural", "--seed", "1", "--name", _NAME, "--keep", "last")
_SUITES = ("pgd", "autoattack")


@click.command()
@click.pass_context
def demo(ctx: click.Context) -> None:
    """Train, evaluate and rank: the whole path on digits, in a few minutes.

    In the current folder: fine-tunes the BN layers of the shipped natural network adversarially,
    attacks it and the shipped checkpoints with PGD and AutoAttack, and writes the leaderboard into
    leaderboards/demo. What an earlier demo left is used again.
    """
    from harness.cli import _boards, _evaluation
    from harness.cli._render import percent, print_line

    root = paths.results_root()
    check_writable(root)
    shipped = _shipped()
    made = _train(ctx)
    for suite in _SUITES:
        print_line(f"$ harness evaluate --suite {suite}  (on every checkpoint)")
        request = _evaluation.Request(root=root, suite=suite, dataset="digits", norm="Linf")
        for name in [*shipped, _NAME]:
            (stored,) = _evaluation.evaluate_all([name], request)
            result = stored.result
            found = "" if stored.ran else "  (evaluated before)"
            print_line(
                f"  {name:16} {percent(result.clean_acc):>8} clean {percent(result.robust_acc):>8} robust{found}"
            )
        print_line()
    print_line("$ harness leaderboard --output leaderboards/demo")
    # in a folder of its own: a board that somebody keeps under version control is not changed by trying things out
    boards = _boards.write_all(root, paths.leaderboards_root() / "demo")
    for board, files in boards:
        if board.name == "digits-Linf":
            _boards.show(board, files)
    print_line(f"results in {root}, the new checkpoint in {made}")


def _shipped() -> list[str]:
    """Names of the digits checkpoints that come with the package."""
    from harness import checkpoints
    from harness.errors import CheckpointError

    folder = checkpoints.folders()[-1:]
    manifests = [checkpoints.read_manifest(path) for path in sorted(folder[0].glob("*.toml"))] if folder else []
    names = [manifest.name for manifest in manifests if manifest.dataset == "digits" and manifest.name != _NAME]
    if "natural" not in names:
        raise CheckpointError("the checkpoints that come with the package are missing: install it again")
    return names


def _train(ctx: click.Context) -> Path:
    """The checkpoint that the demo trains, made now unless an earlier demo made it."""
    from harness import checkpoints
    from harness.cli import commands
    from harness.cli._render import print_line
    from harness.errors import UnknownName

    print_line(f"$ harness train {' '.join(_TRAINING)}")
    try:
        path = checkpoints.find(_NAME)
        print_line(f"  {path} is there already")
    except UnknownName:
        command = commands.get_command(ctx, "train")
        if command is None:
            raise
        with command.make_context("train", list(_TRAINING), parent=ctx) as training:
            command.invoke(training)
        path = checkpoints.find(_NAME)
    print_line()
    return path
