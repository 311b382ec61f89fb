"""``harness bn-swap``."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from harness.cli import _options as options
from harness.cli._render import percent, print_json, print_line, print_table

if TYPE_CHECKING:
    from harness.batchnorm.attribution import Attribution
    from harness.batchnorm.swap import Swap

__all__ = ["bn_swap"]

_SHOWN = 4
"""Mixtures that a flag is said of by name."""


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@options.checkpoint_dir
@options.trust_code
@click.option(
    "--suite",
    default="pgd-20",
    show_default=True,
    metavar="SUITE",
    help="See 'harness list suites'; one that ends in weak attacks overstates what single parts carry.",
)
@click.option("--dataset", metavar="NAME", help="As in 'harness evaluate'; the one of A if not given.")
@options.data_dir
@options.download
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N images.")
@options.norm
@options.eps
@options.eps_units
@click.option("--by-layer", is_flag=True, help="Also swap every layer alone, and all layers but one.")
@click.option(
    "--path-points",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    metavar="N",
    help="Networks on the straight line from A to B, both ends counted; 0 for none.",
)
@options.device
@options.seed
@click.option(
    "--workers",
    type=options.CountOrAuto(),
    default="auto",
    show_default=True,
    help="Processes on a CPU; no verdict depends on it.",
)
@click.option(
    "--output", type=options.folder, metavar="DIR", default="bn-swap", show_default=True, help="Where the files go."
)
@options.as_json
def bn_swap(a: str, b: str, output: Path, as_json: bool, **request: Any) -> None:
    """Find out which BN values carry what checkpoint B gained over A.

    Puts gamma, beta, mean and variance of B's BN layers into A, each alone and in every combination, evaluates
    each of these networks, and attributes the gain in accuracy to the four parts. Also follows the straight line
    from A to B. Writes all figures as CSV and as one picture.
    """
    from harness.util import files

    if request["eps_units"] == "normalized" and request["eps"] is None:
        raise click.UsageError("--eps-units normalized needs --eps")
    files.check_writable(output)
    with redirect_stdout(sys.stderr):
        facts, swap, attributions = _swap(a, b, **request)
    written = _write(facts, swap, attributions[-1], output)
    if as_json:
        print_json(_object(facts, swap, attributions) | {"files": written})
        return
    _show(facts, swap, attributions)
    for path in written.values():
        print_line(f"written {path}")


def _swap(
    a: str,
    b: str,
    *,
    checkpoint_dir: Path | None,
    suite: str,
    dataset: str | None,
    data_dir: Path | None,
    download: bool,
    limit: int | None,
    norm: str | None,
    eps: str | None,
    eps_units: str,
    by_layer: bool,
    path_points: int,
    device: str | None,
    seed: int,
    workers: int | str,
) -> tuple[dict[str, Any], Swap, tuple[Attribution, Attribution]]:
    """What was swapped, for people and programs, what came of it, and the parts it belongs to."""
    from harness import checkpoints, evaluation, suites
    from harness.audit.flags import Flag
    from harness.batchnorm import swap as swapping
    from harness.batchnorm.attribution import attribute
    from harness.cli import _threats
    from harness.cli._pairs import data_for
    from harness.models import Model
    from harness.results.record import Verdicts
    from harness.util.devices import find_device

    place = find_device(device)
    first, second = (checkpoints.load(name, checkpoint_dir=checkpoint_dir) for name in (a, b))
    swapping.parts_of(first.model, second.model)  # before the data set is fetched
    data = data_for(
        first,
        dataset=dataset,
        data_dir=data_dir,
        download=download,
        limit=limit,
        otherwise="choose another with --dataset",
    )
    threat = _threats.choose(first.manifest, data, norm=norm, eps=eps, eps_units=eps_units)
    chosen = suites.get(suite, threat)
    mixtures: list[str] = []
    flagged: dict[Flag, list[str]] = {}

    def began(mixture: str) -> None:
        mixtures.append(mixture)
        print_line(f"evaluating: from {second.name}: {mixture}", err=True)

    def judge(model: Model) -> Verdicts:
        done = evaluation.examine(
            model, data.x, data.y, threat=threat, suite=chosen, seed=seed, device=place, workers=workers
        )
        for flag in done.result.flags:
            flagged.setdefault(flag, []).append(mixtures[-1])
        return done.verdicts

    swap = swapping.bn_swap(
        first.model,
        second.model,
        judge,
        by_layer=by_layer,
        path_points=path_points,
        report=began,
    )
    facts = {
        "a": first.name,
        "b": second.name,
        "weights": [first.manifest.weights_sha256, second.manifest.weights_sha256],
        "rest_equal": swap.rest_equal,
        "dataset": data.name,
        "split": data.split,
        "n": len(data),
        "suite": chosen.name,
        "threat": str(threat),
        "seed": seed,
        "flagged": flagged,
        "caption": f"{len(data):,} {data.name} {data.split} images, {chosen.name}, {threat}, seed {seed}",
    }
    return facts, swap, (attribute(swap, "clean", seed=seed), attribute(swap, "robust", seed=seed))


def _write(facts: dict[str, Any], swap: Swap, robust: Attribution, output: Path) -> dict[str, str]:
    from harness.batchnorm.swap_picture import swap_picture
    from harness.batchnorm.swap_table import swap_table
    from harness.util.files import write_atomically

    stem = output / f"{facts['a']}__{facts['b']}__{facts['dataset']}"
    picture = swap_picture(swap, robust, first=facts["a"], second=facts["b"], caption=facts["caption"])
    content = {"table": (".csv", swap_table(swap).encode()), "picture": (".png", picture)}
    for suffix, data in content.values():
        write_atomically(stem.with_name(stem.name + suffix), data)
    return {kind: str(stem.with_name(stem.name + suffix)) for kind, (suffix, _) in content.items()}


def _object(facts: dict[str, Any], swap: Swap, attributions: tuple[Attribution, ...]) -> dict[str, Any]:
    from dataclasses import asdict

    from harness.batchnorm.swap_table import swap_cells

    return {
        **{name: value for name, value in facts.items() if name != "flagged"},
        "flags": [flag.model_dump() | {"mixtures": mixtures} for flag, mixtures in facts["flagged"].items()],
        "parts": swap.parts,
        "layers": swap.layers,
        "rows": [swap_cells(row) for row in swap.rows],
        "attributions": [{**asdict(one), "leader": one.leader, "sentence": one.sentence} for one in attributions],
    }


def _show(facts: dict[str, Any], swap: Swap, attributions: tuple[Attribution, ...]) -> None:
    from harness.batchnorm.swap_table import swap_cells

    print_line(f"BN values of {facts['b']} in {facts['a']}: {facts['caption']}")
    if swap.rest_equal:
        print_line("A and B are equal outside of their BN layers, so all values from B make B itself")
    else:
        print_line("A and B differ in more than BN: B itself is a row of its own, and all values from B do not make it")
    print_line()
    rows = []
    for row in swap.rows:
        cells = swap_cells(row)
        shown = [row.mix.label]
        for name in ("clean", "robust"):
            low, high = (100 * float(cells[f"{name}_acc_{bound}"] or 0) for bound in ("low", "high"))
            shown += [percent(float(cells[f"{name}_acc"] or 0)), f"{low:.1f} to {high:.1f}"]
        rows.append(shown)
    header = ("from B", "clean", "95 %", "robust", "95 % ")
    print_table(header, rows, right=header[1:])
    print_line()
    for one in attributions:
        print_line(one.sentence)
    for flag, mixtures in facts["flagged"].items():
        more = f" and {len(mixtures) - _SHOWN} more" if len(mixtures) > _SHOWN else ""
        print_line(f"{flag.line}, from B: {'; '.join(mixtures[:_SHOWN])}{more}")
    print_line()
