"""``harness list``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import rich_click as click

from harness.cli import _options as options
from harness.util import plugins

__all__ = ["list_"]

Rows = list[dict[str, str]]

# kind -> family whose files say in their first line what they are; nothing of them is imported
_FAMILIES = {
    "attacks": "harness.attacks",
    "checks": "harness.audit.checks",
    "datasets": "harness.datasets",
    "formats": "harness.results.formats",
    "norm-layers": "harness.models.norm_layers",
    "norms": "harness.threat.norms",
    "sources": "harness.models.sources",
    "suites": "harness.suites",
}


def _family(package: str) -> Rows:
    return [{"name": name, "description": about} for name, about in plugins.summaries(package).items()]


def _architectures() -> Rows:
    from harness.models.sources import forms

    own = _family("harness.models")
    return own + [{"name": form, "description": about} for form, about in forms().items()]


def _checkpoints(checkpoint_dir: Path | None) -> Rows:
    from harness import checkpoints

    return [
        {
            "name": manifest.name,
            "description": f"{manifest.architecture}, {manifest.regime or 'regime unknown'}, "
            f"{manifest.dataset or 'data set unknown'}",
        }
        for manifest in checkpoints.available(checkpoint_dir)
    ]


def _regimes() -> Rows:
    from harness import regimes

    rows = []
    for name in regimes.names():
        regime = regimes.get(name)
        fields = {field: value for field, value in regime.row().items() if field != "regime"}
        rows.append({"name": name, "description": regime.summary, **fields})
    return rows


_OTHERS: dict[str, Callable[[], Rows]] = {"architectures": _architectures, "regimes": _regimes}


@click.command("list")
@click.argument("kind", type=click.Choice(sorted([*_FAMILIES, *_OTHERS, "checkpoints"])), metavar="KIND")
@options.checkpoint_dir
@click.option("-v", "--verbose", is_flag=True, help="Show whole descriptions and, of regimes, their fields.")
@options.as_json
def list_(kind: str, checkpoint_dir: Path | None, verbose: bool, as_json: bool) -> None:
    """Show what there is of a kind, one line each.

    KIND is architectures, attacks, checkpoints, checks, datasets, formats, norm-layers, norms, regimes, sources or
    suites. What installed packages bring is listed too.
    """
    from harness.cli import _render

    if kind == "checkpoints":
        rows = _checkpoints(checkpoint_dir)
    else:
        rows = _family(_FAMILIES[kind]) if kind in _FAMILIES else _OTHERS[kind]()
    if as_json:
        _render.print_json(rows)
        return
    header = list(rows[0]) if rows else ["name", "description"]
    if not verbose:
        _render.print_table(header[:2], [[row[name] for name in header[:2]] for row in rows], one_line=True)
        return
    # a column that is the same in every row tells nothing; JSON has them all
    kept = [name for name in header if name in header[:2] or len({row[name] for row in rows}) > 1]
    _render.print_table(kept, [[row[name] for name in kept] for row in rows])
