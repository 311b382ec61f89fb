"""``harness import``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.exceptions import Exit

from harness.cli import _options as options
from harness.cli._render import print_json, print_line
from harness.errors import HarnessError, InvalidInput
from harness.util import paths
from harness.util.choices import FileFormat
from harness.util.literals import parse_arguments

if TYPE_CHECKING:
    from harness.checkpoints import Comparison, Manifest

__all__ = ["import_"]


def _numbers(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        return tuple(float(number) for number in value.split(","))
    except ValueError:
        raise click.BadParameter(f"expected numbers such as 0.5,0.5,0.5, got {value!r}") from None


def _shape(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int, int] | None:
    if value is None:
        return None
    sizes = value.replace("x", ",").split(",")
    if len(sizes) != 3 or not all(size.strip().isdigit() and int(size) > 0 for size in sizes):
        raise click.BadParameter(f"expected channels, height and width such as 3,32,32, got {value!r}")
    channels, height, width = map(int, sizes)
    return channels, height, width


def _renames(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for value in values:
        old, equals, new = (part.strip() for part in value.partition("="))
        if not old or not equals:
            raise click.BadParameter(f"expected OLD=NEW such as head.fc=fc, got {value!r}")
        pairs.append((old, new))
    return tuple(pairs)


def _arguments(ctx: click.Context, parameter: click.Parameter, value: str | None) -> dict[str, Any]:
    try:
        return parse_arguments(value or "")
    except InvalidInput as error:
        raise click.BadParameter(str(error)) from None


@click.command("import")
@click.argument("files", metavar="FILE [FILE ...]", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--name", metavar="NAME", help="What it is to be called; the name of FILE without its ending if not given."
)
@click.option(
    "--architecture",
    metavar="NAME",
    help="See 'harness list architectures'; not needed for a file that harness wrote.",
)
@click.option(
    "--arch-args",
    "arguments",
    callback=_arguments,
    metavar="NAME=VALUE,...",
    help="Arguments of its constructor, such as width=16,depth=1: numbers, words, lists; kept in the manifest.",
)
@click.option("--norm-layer", metavar="NAME", help="Where it is not the architecture's own.")
@click.option("--dataset", metavar="NAME", help="Trained on; says classes, shape and threat model too.")
@click.option("--classes", type=click.IntRange(min=2), metavar="N", help="Number of classes.")
@click.option("--shape", callback=_shape, metavar="C,H,W", help="Of the images.")
@click.option(
    "--normalization",
    metavar="NAME",
    help="What the model does to images in [0, 1] first: none, cifar10, cifar100, imagenet or mnist.",
)
@click.option("--mean", callback=_numbers, metavar="M,...", help="The same in numbers, one a channel or one for all.")
@click.option("--std", callback=_numbers, metavar="S,...", help="With --mean.")
@click.option("--threat", metavar="NORM:EPS", help="Evaluated in unless told otherwise; the data set's if not given.")
@click.option("--regime", metavar="NAME", help="How it was trained; see 'harness list regimes'.")
@click.option("--parent", metavar="NAME", help="The registered checkpoint it was trained from.")
@click.option("--source", metavar="TEXT", help="Where it comes from; the file's name if not given.")
@click.option(
    "--entry",
    metavar="NAME",
    help="Which entry of FILE to take, where several have weights that fit; . is FILE itself.",
)
@click.option(
    "--rename",
    "renames",
    multiple=True,
    callback=_renames,
    metavar="OLD=NEW",
    help="Parts of names in FILE, and what the architecture calls them, such as head.fc=fc.",
)
@click.option(
    "--format",
    "file_format",
    type=options.choice(FileFormat),
    default="pt",
    show_default=True,
    help="Of the registered copy.",
)
@click.option(
    "--output",
    type=options.folder,
    metavar="DIR",
    help="Where to register it; $HARNESS_HOME/checkpoints if not given, else ./checkpoints.",
)
@options.checkpoint_dir
@options.data_dir
@options.trust_code
@click.option("--overwrite", is_flag=True, help="Replace another checkpoint of that name.")
@options.as_json
def import_(
    files: tuple[Path, ...],
    name: str | None,
    output: Path | None,
    checkpoint_dir: Path | None,
    data_dir: Path | None,
    as_json: bool,
    **facts: Any,
) -> None:
    """Register the weights in FILE as a checkpoint.

    FILE is what torch.save wrote (.pt, .pth, ...), a .safetensors file, a folder or index of several, or
    hf:ORG/REPO[@REVISION], a repository of the Hugging Face Hub, of which only safetensors are fetched. The weights
    are found in any entry and behind any prefix, checked tensor by tensor against the architecture, and nothing in
    FILE is ever run as code.

    The normalisation of the images is taken from the command line, else from constants in FILE, else from the
    architecture's source (timm, torchvision). Where the data set is at hand, clean accuracy on 200 images is shown
    under it and under others, so that a wrong one is seen.

    Several FILEs are registered in turn with the same options, each under its own name. One that fails does not stop
    the others: the exit code is then 1.
    """
    from harness import checkpoints

    if name is not None and len(files) > 1:
        raise click.UsageError("--name is for one FILE; several are called by their own names")
    folder = output or checkpoint_dir or paths.checkpoints_root()
    facts |= {"checkpoint_dir": checkpoint_dir if checkpoint_dir and checkpoint_dir.is_dir() else None}
    shown: list[dict[str, Any]] = []
    failed = False
    for file in files:
        try:
            path = checkpoints.import_file(file, name=name or _own_name(file), directory=folder, **facts)
            point = checkpoints.load(path, checkpoint_dir=folder)
            compared = checkpoints.compare_normalizations(point.model, point.manifest.dataset, data_dir=data_dir)
        except HarnessError as error:
            if len(files) == 1:
                raise
            failed = True
            print_line(f"error: {file} cannot be imported: {error}", err=True)
            continue
        if as_json:
            shown.append(_as_json(path, point.manifest, compared))
        else:
            _show(path, point.manifest, compared)
    if as_json:
        print_json(shown if len(files) > 1 else shown[0])
    if failed:
        raise Exit(1)


def _own_name(file: Path) -> str:
    """What a file is called if nobody says it otherwise."""
    if str(file).startswith("hf:"):
        raise click.UsageError("a repository of the Hub is given a name with --name")
    return file.name.removesuffix(file.suffix)


def _as_json(path: Path, manifest: Manifest, compared: Comparison | None) -> dict[str, Any]:
    measured = {"accuracies": compared.accuracies, "images": compared.images} if compared else None
    return {"path": str(path), **manifest.model_dump(mode="json", by_alias=True), "clean_by_normalization": measured}


def _show(path: Path, manifest: Manifest, compared: Comparison | None) -> None:
    print_line(f"registered {manifest.name} as {path}")
    print_line(f"  {manifest.architecture}, {manifest.parameters:,} parameters, weights {manifest.weights_sha256[:12]}")
    normalization = manifest.normalization
    constants = f"mean {list(normalization.mean)}, std {list(normalization.std)}" if normalization else "none"
    print_line(f"  normalization: {constants}")
    if compared is not None:
        print_line(f"  {compared}")
        if compared.better is not None:
            print_line(
                f"  warning: {compared.better} is clearly more accurate than the normalization that was taken: import "
                f"it again with --normalization {compared.better} --overwrite if that is what it was trained with"
            )
    for note in manifest.notes:
        print_line(f"  {note}")
    for text in manifest.assumed:
        print_line(f"  warning: it was assumed that {text}")
    print_line(f"evaluate it with: harness evaluate --checkpoint {path}")
