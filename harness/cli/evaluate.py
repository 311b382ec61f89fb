"""``harness evaluate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.exceptions import Exit

from harness.cli import _cluster
from harness.cli import _options as options
from harness.cli._written import Remembering
from harness.util import choices, paths
from harness.util.reading import read_lines

if TYPE_CHECKING:
    from harness.cli._evaluation import Request
    from harness.cluster import HandedOver
    from harness.evaluation import Stored

__all__ = ["evaluate"]

_MOST_SEEDS = 1000


def _seeds(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    seeds: list[int] = []
    for part in (value or "").split(",") if value is not None else ():
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not first.isdigit() or (dash and not last.isdigit()) or (dash and int(last) - int(first) >= _MOST_SEEDS):
            raise click.BadParameter(f"expected seeds such as 0-4 or 0,3,7, got {value!r}")
        seeds += range(int(first), int(last or first) + 1)
    return tuple(dict.fromkeys(seeds))


def _class_names(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    try:
        names = tuple(read_lines(Path(value).expanduser()))
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"cannot read {value}: {error}") from None
    if len(names) < 2 or len(set(names)) < len(names):
        raise click.BadParameter(f"expected at least two names of classes in {value}, one a line and each once")
    return names


_GROUPS: dict[str, list[str]] = {
    "What is evaluated": ["--checkpoint", "--checkpoint-dir", "--trust-code", "--bn-stats", "--bn-data"],
    "On which images": [
        "--dataset",
        "--split",
        "--limit",
        "--classes",
        "--resize",
        "--crop",
        "--interpolation",
        "--data-dir",
        "--download",
    ],
    "Under which attack": ["--suite", "--norm", "--eps", "--eps-units", "--seed", "--seeds", "--check"],
    "How it runs": [
        "--device",
        "--workers",
        "--batch-size",
        "--precision",
        "--compile",
        "--graphs",
        "--force",
        "--deterministic",
        "--shard",
    ],
    "Where it runs, if in many places": _cluster.OPTIONS,
    "What comes out": ["--output", "--adversarial", "--json", "--tracker", "--strict", "--debug", "--help"],
}
"""How ``--help`` shows the options; one that is in no group is shown last."""


@click.command(cls=Remembering)
@click.rich_config(
    help_config=click.RichHelpConfiguration(
        option_groups={"harness evaluate": [{"name": name, "options": names} for name, names in _GROUPS.items()]}
    )
)
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    required=True,
    metavar="NAME",
    help="A path or a registered name, such as bn_ft.pt; a pattern ('bn_*'), a folder, or a .txt file that lists "
    "them; a network with its weights: hf:ORG/REPO, timm:NAME, torchvision:NAME, onnx:FILE, FILE.pt2. May be given "
    "several times.",
)
@options.checkpoint_dir
@options.trust_code
@click.option(
    "--suite",
    "suites",
    multiple=True,
    default=("autoattack",),
    metavar="SUITE",
    help="See 'harness list suites'; or a TOML file, or FILE.py:NAME; autoattack if not given. May be given several "
    "times.",
)
@click.option(
    "--dataset",
    metavar="NAME",
    help="A registered name, FILE.py:NAME, an .npz file or a folder of images; the checkpoint's own if not given.",
)
@click.option("--split", default="test", show_default=True, metavar="SPLIT", help="train, val or test.")
@click.option(
    "--classes",
    callback=_class_names,
    metavar="FILE",
    help="For a folder: names of the model's classes in its order, one a line; the folder may have some of them only.",
)
@click.option("--resize", type=click.IntRange(min=1), metavar="N", help="For a folder: resize the shorter side to N.")
@click.option("--crop", type=click.IntRange(min=1), metavar="N", help="For a folder: cut N by N out of the middle.")
@click.option(
    "--interpolation",
    type=options.choice(choices.Interpolation),
    default="bilinear",
    show_default=True,
    help="Of --resize.",
)
@options.data_dir
@options.download
@options.norm
@click.option(
    "--eps",
    "radii",
    multiple=True,
    metavar="EPS",
    help="Radius, such as 8/255 or 0.5; likewise. May be given several times.",
)
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
@click.option("--seeds", callback=_seeds, metavar="A-B", help="Several seeds instead, such as 0-4 or 0,3,7.")
@options.precision
@click.option("--compile", "compiled", is_flag=True, help="Compile the passes of the attacks; for a GPU.")
@click.option(
    "--graphs/--no-graphs",
    default=None,
    help="Replay the passes of the attacks as CUDA graphs; where they are faster, on a GPU, if not given.",
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
@_cluster.options
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
@click.option(
    "--tracker",
    metavar="NAME",
    help="Also tell an experiment tracker: mlflow, tensorboard, trackio or wandb, each an extra of this package.",
)
@click.option("--force", is_flag=True, help="Run again what was evaluated before; the result is stored beside it.")
@click.option("--strict", is_flag=True, help="Exit with code 3 if a result carries flags of severity warn or refuse.")
def evaluate(
    checkpoints: tuple[str, ...],
    suites: tuple[str, ...],
    radii: tuple[str, ...],
    seed: int,
    seeds: tuple[int, ...],
    output: Path | None,
    as_json: bool,
    strict: bool,
    shard: str | None,
    half_width: float | None,
    budget: str | None,
    executor: _cluster.Wanted,
    **request: Any,
) -> None:
    """Evaluate checkpoints under attack and store the results.

    Data set and threat model come from the checkpoint's manifest unless given. An evaluation that was
    stored before is found and shown again instead of run; what has only another name or another manifest since
    then gets a record of its own with the same verdicts.

    Of several evaluations all are checked first. Each is stored and shown as it is done, and one that fails does not
    stop the others: the exit code is then 1, and the last lines name it.
    """
    from harness import checkpoints as registry
    from harness.cli import _evaluation, _jobs, _render

    if request["bn_data"] is not None and request["bn_stats"] not in ("clean", "adversarial"):
        raise click.UsageError("--bn-data goes with --bn-stats clean or adversarial")
    if request["eps_units"] == "normalized" and not radii:
        raise click.UsageError("--eps-units normalized needs --eps")
    if seeds and seed:
        raise click.UsageError("give --seed or --seeds, not both")
    names = registry.matching(checkpoints, request["checkpoint_dir"])
    asked = _evaluation.Request(root=output or paths.results_root(), suite=suites[0], **request)
    wanted = _jobs.jobs(names, asked, suites, radii, seeds or (seed,))
    if executor.name is not None and (shard, half_width, budget, asked.tracker) != (None, None, None, None):
        raise click.UsageError("--devices and --executor do not go with --shard, --estimate, --budget or --tracker")
    if half_width is not None or budget is not None:
        if shard is not None:
            raise click.UsageError("--estimate and --budget do not go with --shard")
        _estimate([(job.checkpoint, job.request) for job in wanted], half_width, budget, as_json=as_json, strict=strict)
        return
    if shard is not None:
        if not asked.adversarial:
            raise click.UsageError("a part holds its adversarial examples: say --no-adversarial to 'harness collect'")
        _shard([(job.checkpoint, job.request) for job in wanted], shard, as_json=as_json, strict=strict)
        return
    done: list[Stored | _jobs.Failure] = []
    elsewhere: list[HandedOver] = []
    run = _jobs.evaluate_each(wanted) if executor.name is None else _cluster.evaluate_each(wanted, executor, elsewhere)
    for one in run:
        done.append(one)
        if not as_json and not isinstance(one, _jobs.Failure):
            _evaluation.show(one)
            sys.stdout.flush()
    found = [one for one in done if not isinstance(one, _jobs.Failure)]
    if as_json:
        shown = [*map(_evaluation.as_json, found), *map(_cluster.as_json, elsewhere)]
        _render.print_json(shown[0] if len(wanted) == 1 else shown)
    elif len(done) > 1:
        _jobs.show_summary(done)
    if elsewhere and not as_json:
        _cluster.show_handed_over(elsewhere, asked.root)
    if len(found) < len(done):
        raise Exit(1)
    if strict and any(flag.doubtful for stored in found for flag in stored.result.flags):
        raise Exit(3)


def _shard(asked: list[tuple[str, Request]], shard: str, *, as_json: bool, strict: bool) -> None:
    from harness.cli import _evaluation, _render, _shards

    parts = _evaluation.evaluate_shards(asked, shard)
    if as_json:
        shown = [_shards.part_as_json(stored) for stored in parts]
        _render.print_json(shown if len(shown) > 1 else shown[0])
    else:
        for stored in parts:
            _shards.show_part(stored)
    if strict and any(flag.doubtful for stored in parts for flag in stored.part.record.result.flags):
        raise Exit(3)


def _estimate(
    asked: list[tuple[str, Request]],
    half_width: float | None,
    budget: str | None,
    *,
    as_json: bool,
    strict: bool,
) -> None:
    from harness.cli import _estimates, _render

    found = _estimates.estimate_all(asked, half_width, budget)
    if as_json:
        shown = [_estimates.as_json(stored) for stored in found]
        _render.print_json(shown if len(shown) > 1 else shown[0])
    else:
        for stored in found:
            _estimates.show(stored)
    if strict and any(flag.doubtful for stored in found for flag in stored.record.flags):
        raise Exit(3)
