"""``harness list``."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import rich_click as click

from harness.cli import _options as options

__all__ = ["list_"]

Rows = list[dict[str, str]]


def _family(folder: str) -> Rows:
    # the first line of each file says what it is; reading it spares the imports
    rows = []
    for path in sorted((Path(__file__).parents[1] / folder).glob("[!_]*.py")):
        about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        rows.append({"name": path.stem.replace("_", "-"), "description": about.partition("\n")[0]})
    return rows


def _architectures() -> Rows:
    from harness import models

    own = [{"name": name, "description": models.describe(name)} for name in models.names()]
    return own + [{"name": form, "description": about} for form, about in models.SOURCES.items()]


def _attacks() -> Rows:
    return _family("attacks")


def _checkpoints(checkpoint_dir: Path | None = None) -> Rows:
    from harness import checkpoints

    return [
        {
            "name": manifest.name,
            "description": f"{manifest.architecture}, {manifest.regime or 'regime unknown'}, "
            f"{manifest.dataset or 'data set unknown'}",
        }
        for manifest in checkpoints.available(checkpoint_dir)
    ]


def _datasets() -> Rows:
    return _family("datasets")


def _regimes() -> Rows:
    from harness import regimes

    rows = []
    for name in regimes.names():
        regime = regimes.get(name)
        fields = {field: value for field, value in regime.row().items() if field != "regime"}
        rows.append({"name": name, "description": regime.summary, **fields})
    return rows


def _suites() -> Rows:
    from harness import suites

    return [{"name": name, "description": suites.describe(name)} for name in suites.names()]


_KINDS: dict[str, Callable[[], Rows]] = {
    "architectures": _architectures,
    "attacks": _attacks,
    "checkpoints": _checkpoints,
    "datasets": _datasets,
    "regimes": _regimes,
    "suites": _suites,
}


@click.command("list")
@click.argument("kind", type=click.Choice(sorted(_KINDS)), metavar="KIND")
@options.checkpoint_dir
@options.as_json
def list_(kind: str, checkpoint_dir: Path | None, as_json: bool) -> None:
    """Show what there is of a kind, one line each.

    KIND is architectures, attacks, checkpoints, datasets, regimes or suites.
    """
    from harness.cli import _render

    rows = _checkpoints(checkpoint_dir) if kind == "checkpoints" else _KINDS[kind]()
    if as_json:
        _render.print_json(rows)
        return
    header = list(rows[0]) if rows else ["name", "description"]
    # a column that is the same in every row tells nothing; JSON has them all
    kept = [name for name in header if name in header[:2] or len({row[name] for row in rows}) > 1]
    _render.print_table(kept, [[row[name] for name in kept] for row in rows])
