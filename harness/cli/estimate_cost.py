"""``harness estimate-cost``."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from harness.cli import _options as options
from harness.util.text import counted

if TYPE_CHECKING:
    from harness.evaluation import Forecast

__all__ = ["estimate_cost"]


@click.command()
@click.option("--checkpoint", required=True, metavar="NAME", help="A path or a registered name, such as bn_ft.pt.")
@options.checkpoint_dir
@options.trust_code
@click.option("--suite", default="autoattack", show_default=True, metavar="SUITE", help="As for 'harness evaluate'.")
@click.option("--dataset", metavar="NAME", help="As for 'harness evaluate'; the checkpoint's own if not given.")
@options.data_dir
@options.norm
@options.eps
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N images.")
@click.option("--batch-size", type=options.CountOrAuto(), default="auto", show_default=True, help="Images in one pass.")
@options.device
@options.seed
@options.precision
@click.option("--workers", type=options.CountOrAuto(), default="auto", show_default=True, help="Processes on a CPU.")
@options.as_json
def estimate_cost(checkpoint: str, as_json: bool, **request: Any) -> None:
    """Say how long 'harness evaluate' with the same options will take on this machine.

    As many images as some seconds allow go through the first run of every step, which says how many survive, how soon
    the others are broken, and what a pass takes. Nothing is stored. The figure holds for the load that the machine has
    now.
    """
    from harness import evaluation
    from harness.cli import _evaluation
    from harness.cli._render import print_json

    with redirect_stdout(sys.stderr):
        plan = _evaluation.Planner().plan(checkpoint, _evaluation.Request(root=Path(), **request))
        found = evaluation.forecast(plan)
    if as_json:
        print_json(_as_json(found))
    else:
        _show(found)


def _as_json(found: Forecast) -> dict[str, Any]:
    return {
        "n": found.n,
        "correct": found.correct,
        "surviving": found.surviving,
        "workers": found.workers,
        "seconds": found.seconds,
        "preparing_seconds": found.preparing_seconds,
        "steps": [vars(step) for step in found.steps],
        "probe_seconds": found.probe_seconds,
    }


def _show(found: Forecast) -> None:
    from harness.cli._render import print_line, print_table
    from harness.cli._times import duration

    header = ("step", "images", "forward", "backward", "time")
    rows = [
        (step.name, f"{step.samples:,}", f"{step.forward:,}", f"{step.backward:,}", duration(step.seconds))
        for step in found.steps
    ]
    rows = [("before the attacks", f"{found.n:,}", "", "", duration(found.preparing_seconds)), *rows]
    print_table(header, rows, right=header[1:])
    left = "will survive" if found.steps else "are classified correctly"
    work = f"{counted(found.workers, 'worker')} for {counted(found.n, 'image')}"
    print_line(
        f"about {duration(found.seconds)} with {work}, of which about {found.surviving:,} {left} "
        f"(probed for {duration(found.probe_seconds)})"
    )
