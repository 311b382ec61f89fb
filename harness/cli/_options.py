"""Options that several commands share, and their types."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import rich_click as click

from harness.util.choices import Precision, names

__all__ = [
    "CountOrAuto",
    "as_json",
    "checkpoint_dir",
    "choice",
    "data_dir",
    "device",
    "download",
    "eps",
    "eps_units",
    "folder",
    "norm",
    "precision",
    "seed",
    "spelled",
    "trust_code",
]


class CountOrAuto(click.ParamType):  # type: ignore[type-arg]  # not subscriptable in every click
    """A whole number of at least 1, or ``auto``."""

    name = "N|auto"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | Literal["auto"]:
        """From the text on the command line."""
        if value == "auto":
            return "auto"
        try:
            count = int(str(value))
        except ValueError:
            count = 0
        if count < 1:
            self.fail(f"expected a whole number of at least 1 or 'auto', got {value!r}", param, ctx)
        return count


def choice(of: object) -> click.Choice:  # type: ignore[type-arg]  # not subscriptable in every click
    """One of the names of a type in `harness.util.choices`."""
    return click.Choice(names(of))


def spelled(parameter: str) -> str:
    """A parameter as it is written on the command line: ``--data-dir`` of ``data_dir``."""
    return f"--{parameter.replace('_', '-')}"


def _trust_code(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from harness.util import trust

        ctx.with_resource(trust.trusting())


folder = click.Path(path_type=Path)

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout and nothing else.")
checkpoint_dir = click.option("--checkpoint-dir", type=folder, metavar="DIR", help="Look for checkpoints here first.")
data_dir = click.option("--data-dir", type=folder, metavar="DIR", help="Where data sets lie or are downloaded to.")
download = click.option("--download", is_flag=True, help="Download the data set into --data-dir if it is missing.")
device = click.option(
    "--device", metavar="DEVICE", help="Such as cpu, cuda or cuda:1; a GPU is taken where there is one."
)
norm = click.option(
    "--norm", metavar="NORM", help="Linf, L2, L1 or FILE.py:NAME; the checkpoint's, else the data set's, if not given."
)
eps = click.option("--eps", metavar="EPS", help="Radius, such as 8/255 or 0.5; likewise.")
eps_units = click.option(
    "--eps-units",
    type=click.Choice(["pixel", "normalized"]),
    default="pixel",
    show_default=True,
    help="Of --eps: inputs in [0, 1], or inputs after the model's normalisation, which is converted with a warning.",
)
seed = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of all randomness.",
)
trust_code = click.option(
    "--trust-code",
    is_flag=True,
    expose_value=False,
    callback=_trust_code,
    help="Run code that a manifest names, also where nobody has named it on this machine before.",
)
precision = click.option(
    "--precision",
    type=choice(Precision),
    default="auto",
    show_default=True,
    help="Of the attacked model; what counts as broken is always judged in float32. auto: fp32, on a GPU also tf32.",
)
