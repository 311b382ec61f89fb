"""``harness evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.exceptions import Exit

from harness.cli import _options as options
from harness.util import choices, paths

if TYPE_CHECKING:
    from harness.cli._evaluation import Request

__all__ = ["evaluate"]


@click.command()
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    required=True,
    metavar="NAME",
    help="A path or a registered name, such as bn_ft.pt; may be given several times.",
)
@options.checkpoint_dir
@options.trust_code
@click.option(
    "--suite",
    default="autoattack",
    show_default=True,
    metavar="SUITE",
    help="See 'harness list suites'; or a TOML file, or FILE.py:NAME.",
)
@click.option(
    "--dataset",
    metavar="NAME",
    help="A registered name, FILE.py:NAME, an .npz file or a folder of images; the checkpoint's own if not given.",
)
@options.data_dir
@options.download
@options.norm
@options.eps
@options.eps_units
@click.option(
    "--bn-stats",
    type=options.choice(choices.BnStatisticsKind),
    default="stored",
    show_default=True,
    help="Running statistics of the BN layers: as stored, re-estimated on clean or on adversarial training "
    "images, or those of the batch at hand.",
)
@click.option(
    "--bn-data",
    metavar="NAME",
    help="Training images for clean and adversarial statistics; the train split of --dataset if not given.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only the first N images: a partial run, ranked apart.",
)
@click.option(
    "--batch-size",
    type=options.CountOrAuto(),
    default="auto",
    show_default=True,
    help="The most images in one pass of the model; no verdict depends on it.",
)
@options.device
@options.seed
@options.precision
@click.option(
    "--compile", "compiled", is_flag=True, help="Compile the passes of the attacks; for a GPU, untested there."
)
@click.option(
    "--graphs", is_flag=True, help="Replay the passes of the attacks as CUDA graphs, on a GPU only; untested there."
)
@click.option(
    "--workers",
    type=options.CountOrAuto(),
    default="auto",
    show_default=True,
    help="Processes on a CPU; no verdict depends on it.",
)
@click.option(
    "--deterministic",
    is_flag=True,
    help="The same adversarial examples and passes, bit for bit, whatever the batch size and the workers.",
)
@click.option(
    "--shard",
    metavar="K/N|auto",
    help="Attack only part K of N of the images, deterministically, and leave it for 'harness collect'; auto takes "
    "it from a Slurm array or from RANK and WORLD_SIZE.",
)
@click.option(
    "--estimate",
    "half_width",
    type=click.FloatRange(min=0, max=50, max_open=True),
    metavar="POINTS",
    help="Attack only so many images that the suite's robust accuracy is known to within POINTS, at 95 %; an estimate "
    "is never ranked, and may be continued with a smaller number.",
)
@click.option(
    "--budget", metavar="TIME", help="End an estimate after so long, such as 90s, 10m or 2h, with the interval of then."
)
@click.option(
    "--check",
    "checks",
    multiple=True,
    metavar="NAME",
    help="An audit check besides the registered ones, mostly FILE.py:NAME; may be given several times.",
)
@click.option(
    "--output",
    type=options.folder,
    metavar="DIR",
    help="Where results go; leaderboards/results under $HARNESS_HOME or here if not given.",
)
@options.as_json
@click.option(
    "--adversarial/--no-adversarial",
    default=True,
    help="Whether to keep the adversarial example of every broken sample beside the result, for 'harness verify'; "
    "kept if not given.",
)
@click.option("--force", is_flag=True, help="Run again what was evaluated before; the result is stored beside it.")
@click.option("--strict", is_flag=True, help="Exit with code 3 if a result carries flags of severity warn or refuse.")
def evaluate(
    checkpoints: tuple[str, ...],
    output: Path | None,
    as_json: bool,
    strict: bool,
    shard: str | None,
    half_width: float | None,
    budget: str | None,
    **request: Any,
) -> None:
    """Evaluate checkpoints under attack and store the results.

    Data set and threat model come from the checkpoint's manifest unless given. An evaluation that was
    stored before is found and shown again instead of run; what has only another name or another manifest since
    then gets a record of its own with the same verdicts.
    """
    from harness.cli import _evaluation, _render

    if request["bn_data"] is not None and request["bn_stats"] not in ("clean", "adversarial"):
        raise click.UsageError("--bn-data goes with --bn-stats clean or adversarial")
    if request["eps_units"] == "normalized" and request["eps"] is None:
        raise click.UsageError("--eps-units normalized needs --eps")
    asked = _evaluation.Request(root=output or paths.results_root(), **request)
    if half_width is not None or budget is not None:
        if shard is not None:
            raise click.UsageError("--estimate and --budget do not go with --shard")
        _estimate(list(checkpoints), asked, half_width, budget, as_json=as_json, strict=strict)
        return
    if shard is not None:
        if not asked.adversarial:
            raise click.UsageError("a part holds its adversarial examples: say --no-adversarial to 'harness collect'")
        _shard(list(checkpoints), asked, shard, as_json=as_json, strict=strict)
        return
    found = _evaluation.evaluate_all(list(checkpoints), asked)
    if as_json:
        shown = [_evaluation.as_json(stored) for stored in found]
        _render.print_json(shown if len(shown) > 1 else shown[0])
    else:
        for stored in found:
            _evaluation.show(stored)
    if strict and any(flag.doubtful for stored in found for flag in stored.result.flags):
        raise Exit(3)


def _shard(checkpoints: list[str], asked: Request, shard: str, *, as_json: bool, strict: bool) -> None:
    from harness.cli import _evaluation, _render, _shards

    parts = _evaluation.evaluate_shards(checkpoints, asked, shard)
    if as_json:
        shown = [_shards.part_as_json(stored) for stored in parts]
        _render.print_json(shown if len(shown) > 1 else shown[0])
    else:
        for stored in parts:
            _shards.show_part(stored)
    if strict and any(flag.doubtful for stored in parts for flag in stored.part.record.result.flags):
        raise Exit(3)


def _estimate(
    checkpoints: list[str],
    asked: Request,
    half_width: float | None,
    budget: str | None,
    *,
    as_json: bool,
    strict: bool,
) -> None:
    from harness.cli import _estimates, _render

    found = _estimates.estimate_all(checkpoints, asked, half_width, budget)
    if as_json:
        shown = [_estimates.as_json(stored) for stored in found]
        _render.print_json(shown if len(shown) > 1 else shown[0])
    else:
        for stored in found:
            _estimates.show(stored)
    if strict and any(flag.doubtful for stored in found for flag in stored.record.flags):
        raise Exit(3)
