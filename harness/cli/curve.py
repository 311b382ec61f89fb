"""``harness curve``."""

from __future__ import annotations

import hashlib
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from harness.cli import _options as options
from harness.cli._render import percent, print_json, print_line, print_table
from harness.util import paths
from harness.util.text import counted

if TYPE_CHECKING:
    from harness.cli._evaluation import Request
    from harness.results.curve import Curve

__all__ = ["curve"]


def _radii(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    radii = tuple(part.strip() for part in value.split(","))
    if not all(radii):
        raise click.BadParameter(f"expected radii such as 2/255,4/255,8/255, got {value!r}")
    return radii


@click.command()
@click.argument("checkpoint", metavar="CHECKPOINT")
@options.checkpoint_dir
@options.trust_code
@click.option("--eps", "radii", required=True, callback=_radii, metavar="EPS,...", help="Radii: 0,2/255,4/255,8/255.")
@options.norm
@click.option("--suite", default="autoattack", show_default=True, metavar="SUITE", help="As for 'harness evaluate'.")
@click.option("--dataset", metavar="NAME", help="As for 'harness evaluate'; the checkpoint's own if not given.")
@options.data_dir
@options.download
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N images.")
@options.seed
@options.device
@options.precision
@click.option("--workers", type=options.CountOrAuto(), default="auto", show_default=True, help="Processes on a CPU.")
@click.option("--batch-size", type=options.CountOrAuto(), default="auto", show_default=True, help="Images in one pass.")
@click.option(
    "--distances/--no-distances",
    default=True,
    help="Whether to run FAB to its end as well, where the suite has it, for the median distance of the nearest "
    "adversarial examples; run if not given.",
)
@click.option(
    "--results",
    "root",
    type=options.folder,
    metavar="DIR",
    help="Where each evaluation is stored, or found; leaderboards/results under $HARNESS_HOME or here if not given.",
)
@click.option(
    "--output",
    type=options.folder,
    metavar="DIR",
    help="Where table and picture go; leaderboards/curves under $HARNESS_HOME or here if not given.",
)
@options.as_json
def curve(
    checkpoint: str,
    radii: tuple[str, ...],
    distances: bool,
    root: Path | None,
    output: Path | None,
    as_json: bool,
    **request: Any,
) -> None:
    """Evaluate a checkpoint at several radii: robust accuracy against eps.

    Each radius is an ordinary evaluation, stored as 'harness evaluate' stores it, and found if it is there. A sample
    that was broken at some radius counts as broken at every larger one, as its adversarial example lies in the larger
    ball as well; so the curve never rises. Writes a table (CSV) and a picture (SVG).
    """
    from harness.cli import _evaluation
    from harness.results.curve_files import curve_picture, curve_table
    from harness.util.files import check_writable, write_atomically

    folder = output or paths.leaderboards_root() / "curves"
    check_writable(folder)
    asked = _evaluation.Request(root=root or paths.results_root(), **request)
    found, flags = _evaluated(checkpoint, asked, radii, distances)
    stem = folder / _stem(found)
    files = {"table": stem.with_name(f"{stem.name}.csv"), "picture": stem.with_name(f"{stem.name}.svg")}
    write_atomically(files["table"], curve_table(found).encode())
    write_atomically(files["picture"], curve_picture(found))
    if as_json:
        print_json(
            _object(found) | {"flags": flags, "files": {kind: str(path.resolve()) for kind, path in files.items()}}
        )
        return
    _show(found)
    for eps, texts in flags.items():
        for text in texts:
            print_line(f"flag at {eps}: {text}")
    for path in files.values():
        print_line(f"written {path}")


def _evaluated(
    checkpoint: str, asked: Request, radii: tuple[str, ...], distances: bool
) -> tuple[Curve, dict[str, list[str]]]:
    """The curve, and for every eps the reasons to doubt what was found there."""
    from dataclasses import replace

    from harness import evaluation
    from harness.cli import _evaluation
    from harness.evaluation.display import displayed
    from harness.results import store
    from harness.results.curve import curve_of
    from harness.threat import ThreatModel
    from harness.util.files import check_writable

    check_writable(asked.root)
    planner = _evaluation.Planner()
    with redirect_stdout(sys.stderr):
        wanted = evaluation.ascending([ThreatModel("Linf", eps) for eps in radii])  # the norm does not matter yet
        plans = [planner.checked(checkpoint, replace(asked, eps=threat.eps)) for threat in wanted]
        stored = [_evaluation.run_plan(plan, asked, f"eps {plan.threat.eps}, ") for plan in plans]
        found = None
        if distances:
            with displayed(plans[-1].target.name, plans[-1].suite.name) as report:
                found = evaluation.smallest_distances(plans[-1], progress=report)
    curve = curve_of([(one.result, store.read_verdicts(one.path)) for one in stored], found)
    doubts = {one.result.threat.eps: [str(flag) for flag in one.result.flags if flag.doubtful] for one in stored}
    return curve, {eps: texts for eps, texts in doubts.items() if texts}


def _stem(found: Curve) -> str:
    from harness.results.store import safe_name

    # other weights, images or radii are another curve and replace none
    decides = [*(point.evaluation_id for point in found.points), found.distances is not None]
    hashed = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:12]
    return "__".join([*(safe_name(part) for part in (found.label, found.suite, found.norm, found.dataset)), hashed])


def _object(found: Curve) -> dict[str, Any]:
    return {
        "checkpoint": found.label,
        "dataset": found.dataset,
        "split": found.split,
        "suite": found.suite,
        "norm": found.norm,
        "seed": found.seed,
        "n": found.n,
        "points": [
            {
                "eps": point.eps,
                "radius": point.radius,
                "robust_acc": found.accuracy(point),
                "interval": list(found.interval(point)),
                "robust_alone_acc": point.alone / found.n,
                "evaluation_id": point.evaluation_id,
            }
            for point in found.points
        ],
        "area": found.area,
        "median_distance": found.median_distance,
    }


def _show(found: Curve) -> None:
    print_line(
        f"{found.label}: {found.suite}, {found.norm}, {counted(found.n, f'{found.dataset} {found.split} image')}"
    )
    rows = []
    for point in found.points:
        low, high = found.interval(point)
        broken = point.alone - point.robust
        rows.append(
            (
                point.eps,
                percent(found.accuracy(point)),
                f"{100 * low:.1f} to {100 * high:.1f}",
                broken if broken else "",
            )
        )
    header = ("eps", "robust", "95 %", "broken at a smaller eps only")
    print_table(header, rows, right=header)
    print_line(f"area under the curve {found.area:.3f} (mean robust accuracy from eps 0 to {found.points[-1].eps})")
    if found.median_distance is not None:
        print_line(f"median distance of the nearest adversarial example that FAB found {found.median_distance:.4g}")
    elif found.distances is not None:
        print_line("FAB found no adversarial example for half of the samples, at any distance")
