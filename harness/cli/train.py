"""``harness train``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.core import ParameterSource
from click.globals import get_current_context

from harness.cli import _options as options
from harness.cli._render import percent, print_json, print_line
from harness.util import choices, paths

if TYPE_CHECKING:
    from harness.training import Settings
    from harness.training.outcome import Progress, Tick

__all__ = ["train"]

# of the machine or of the output, not of the training
_NOT_REPEATED = ("as_json", "checkpoint_dir", "data_dir", "download", "overwrite")


@click.command()
@click.option(
    "--regime",
    required=True,
    metavar="NAME",
    help="See 'harness list regimes'; or a TOML file of your own, or FILE.py:NAME.",
)
@click.option("--parent", metavar="CHECKPOINT", help="What a regime that starts from a parent starts from.")
@options.checkpoint_dir
@options.trust_code
@click.option(
    "--dataset",
    metavar="NAME",
    help="A registered name, FILE.py:NAME, an .npz file or a folder; the parent's if not given.",
)
@options.data_dir
@options.download
@click.option("--limit", type=click.IntRange(min=2), metavar="N", help="Train on the first N images only.")
@click.option(
    "--architecture",
    metavar="NAME",
    help="Of a regime that starts at random; digits-resnet if not given. A parent brings its own.",
)
@click.option("--epochs", type=int, metavar="N", help="15 if not given.")
@click.option("--batch-size", type=int, metavar="N", help="64 if not given.")
@click.option("--lr", "learning_rate", type=float, metavar="RATE", help="At the schedule's peak; 0.1 if not given.")
@click.option("--weight-decay", type=float, metavar="DECAY", help="5e-4 if not given.")
@click.option("--momentum", type=float, metavar="M", help="0.9 if not given.")
@click.option(
    "--schedule",
    type=options.choice(choices.ScheduleName),
    help="Of the learning rate; one-cycle if not given.",
)
@click.option("--norm", metavar="NORM", help="Linf, L2 or L1; the data set's if not given.")
@click.option("--eps", metavar="EPS", help="Radius for inputs in [0, 1], such as 8/255; the data set's if not given.")
@click.option("--attack", type=options.choice(choices.CraftingMethod), help="That crafts; pgd if not given.")
@click.option("--steps", type=int, metavar="N", help="Of pgd; 7 if not given.")
@click.option("--step-size", metavar="SIZE", help="Such as 2/255; 2.5 eps / steps for pgd if not given.")
@click.option("--label-smoothing", type=float, metavar="SHARE", help="None if not given.")
@click.option("--weight-averaging", type=float, metavar="DECAY", help="Average the weights, such as 0.999 a step.")
@click.option("--augment", type=options.choice(choices.Augmentation), help="crop-flip suits CIFAR; none if not given.")
@click.option("--validation", type=float, metavar="SHARE", help="Of the training data kept aside; 0.1 if not given.")
@click.option("--normalize/--no-normalize", default=None, help="Normalise inside the model, by the training data; on.")
@click.option("--precision", type=options.choice(choices.Precision), help="auto: bf16 on a GPU, else fp32.")
@click.option("--compile/--no-compile", default=None, help="Compile the passes; on a GPU if not given.")
@options.seed
@options.device
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="On a CPU; part of what makes a run repeatable.",
)
@click.option("--name", metavar="NAME", help="Of the checkpoint; the regime's with underscores if not given.")
@click.option(
    "--output", type=options.folder, metavar="DIR", help="$HARNESS_HOME/checkpoints if not given, else ./checkpoints."
)
@click.option(
    "--keep",
    type=options.choice(choices.KeptEpochs),
    default="both",
    show_default=True,
    help="Last epoch (NAME.pt), best on validation data (NAME_best.pt), or both.",
)
@click.option("--overwrite", is_flag=True, help="Replace checkpoints of that name.")
@options.as_json
def train(
    regime: str,
    parent: str | None,
    checkpoint_dir: Path | None,
    dataset: str | None,
    data_dir: Path | None,
    download: bool,
    limit: int | None,
    architecture: str | None,
    norm: str | None,
    eps: str | None,
    device: str | None,
    threads: int,
    name: str | None,
    output: Path | None,
    keep: Any,
    overwrite: bool,
    as_json: bool,
    **numbers: Any,
) -> None:
    """Train a model under a regime and register it.

    A run that was killed continues from its last epoch when the same command is given again.
    """
    import torch

    from harness import checkpoints, datasets, regimes, training

    torch.set_num_threads(threads)
    chosen = regimes.get(regime)
    name = name or chosen.name.replace("-", "_")
    folder = output or paths.checkpoints_root()
    start = checkpoints.load(parent, checkpoint_dir=checkpoint_dir) if parent else None
    known = dataset or (start.manifest.dataset if start else None)
    if known is None:
        raise click.UsageError("a data set is needed: --dataset")
    data = datasets.load(known, split="train", data_dir=data_dir, download=download, limit=limit)
    with _progress(name) as progress:
        outcome, written = training.train_and_register(
            chosen,
            dataset=data,
            settings=_settings(numbers, norm, eps, data),
            architecture=architecture or (None if start else "digits-resnet"),
            parent=start,
            device=device,
            directory=folder,
            name=name,
            kept=keep,
            command=_command(get_current_context()),
            overwrite=overwrite,
            progress=progress,
            state_dir=folder / ".training",
        )
    _show(outcome, written, name, chosen.name, as_json)


def _settings(numbers: dict[str, Any], norm: str | None, eps: str | None, data: Any) -> Settings:
    from harness.errors import InvalidInput
    from harness.threat import ThreatModel
    from harness.training import Settings
    from harness.util.validation import validate

    given = {field: value for field, value in numbers.items() if value is not None}
    if norm or eps:
        standard = {threat.norm.lower(): threat for threat in reversed(data.threats)}
        norm = norm or (data.threats[0].norm if data.threats else "Linf")
        own = standard.get(norm.lower())
        if eps is None and own is None:
            raise InvalidInput(f"{data.name} has no standard radius in {norm}: give --eps")
        given["threat"] = str(ThreatModel(norm, eps)) if eps else str(own)
    return validate(Settings, given, "the training options")


def _command(ctx: click.Context) -> str:
    """The command line again, but for what belongs to the machine; the same words in whatever order they came."""
    words = ["harness", "train"]
    for option in ctx.command.params:
        value = ctx.params.get(option.name or "")
        given = ctx.get_parameter_source(option.name or "") == ParameterSource.COMMANDLINE
        if not isinstance(option, click.Option) or not given or option.name in (*_NOT_REPEATED, "output"):
            continue
        if isinstance(value, bool):
            words.append(option.opts[0] if value else option.secondary_opts[0])
        else:
            words += [option.opts[0], str(value)]
    return join(words)


def _show(outcome: Any, written: Any, name: str, regime: str, as_json: bool) -> None:
    files = {"last": written.last, "best": written.best, "log": written.log}
    if as_json:
        final = outcome.validation(outcome.epochs)
        print_json(
            {
                "checkpoint": name,
                "regime": regime,
                "epochs": outcome.epochs,
                "best_epoch": outcome.best_epoch,
                "parameters": outcome.parameters,
                "trained_parameters": outcome.trained_parameters,
                **{field: final.get(field) for field in ("validation_clean_acc", "validation_robust_acc")},
                "seconds": outcome.facts["seconds"],
                **{which: None if path is None else str(path) for which, path in files.items()},
            }
        )
        return
    share = outcome.trained_parameters / max(1, outcome.parameters)
    print_line(
        f"{name}: {regime}, trained {outcome.trained_parameters} of {outcome.parameters} parameters ({percent(share)})"
    )
    for epoch, path, what in (
        (outcome.epochs, written.last, "last epoch"),
        (outcome.best_epoch, written.best, "best epoch"),
    ):
        if path is not None:
            found = outcome.validation(epoch)
            accuracies = (
                f": validation {percent(found['validation_clean_acc'])} clean, "
                f"{percent(found['validation_robust_acc'])} under PGD"
                if found
                else ""
            )
            print_line(f"{path}  {what}, {epoch}{accuracies}")
    print_line(f"{written.log}  log")


@contextmanager
def _progress(label: str) -> Iterator[Progress]:
    """A bar with time left on a terminal, else a line an epoch. On stderr."""
    if not sys.stderr.isatty():
        yield lambda tick: _line(label, tick)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[found]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=1.0, found="")

        def show(tick: Tick) -> None:
            bars.update(task, completed=tick.done, description=f"{label}: epoch {tick.epoch} of {tick.epochs}")
            if tick.row is not None:
                bars.update(task, found=_found(tick))

        yield show


def _line(label: str, tick: Tick) -> None:
    if tick.row is not None:
        print_line(f"{label}: epoch {tick.row.epoch} of {tick.epochs}{_found(tick)}", err=True)


def _found(tick: Tick) -> str:
    row = tick.row
    if row is None:
        return ""
    loss = "" if row.loss is None else f" loss {row.loss:.3f}"
    if row.validation_clean_acc is None or row.validation_robust_acc is None:
        return loss
    return f"{loss} validation {percent(row.validation_clean_acc)} / {percent(row.validation_robust_acc)} PGD"
