"""``harness inspect``."""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from harness.cli import _options as options
from harness.cli._render import percent, print_json, print_line, print_table
from harness.util.literals import listed_arguments

if TYPE_CHECKING:
    from harness.checkpoints import Checkpoint, Manifest
    from harness.checkpoints.lineage import BnLayer, Lineage, Summary

__all__ = ["inspect"]


@click.command()
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.option("--parent", metavar="NAME", help="Compare with this one instead of the parent that the manifest names.")
@options.checkpoint_dir
@options.trust_code
@options.as_json
def inspect(checkpoint: str, parent: str | None, checkpoint_dir: Path | None, as_json: bool) -> None:
    """Show what a checkpoint is, its BN layers one by one, and what changed since its parent."""
    from harness import checkpoints as registry
    from harness.checkpoints import lineage

    loaded = registry.load(checkpoint, checkpoint_dir=checkpoint_dir)
    if parent is None:
        other = lineage.parent_of(loaded, checkpoint_dir=checkpoint_dir)
    else:
        other = registry.load(parent, checkpoint_dir=checkpoint_dir)
        # asked to compare, what cannot be compared is an error
        lineage.difference(loaded.model, other.model)
    layers = lineage.bn_report(loaded.model)
    verdict = lineage.verify_claim(loaded, other)
    if as_json:
        print_json(_object(loaded, layers, verdict))
        return
    _show_facts(loaded)
    _show_layers(layers)
    _show_lineage(verdict)


def _object(loaded: Checkpoint, layers: tuple[BnLayer, ...], verdict: Lineage) -> dict[str, Any]:
    told = asdict(verdict)
    change = told["difference"]
    if change is not None and verdict.difference is not None:
        change["changed"] = sorted(change["changed"])
        change["moved_layers"] = sorted(change["moved_layers"])
        change["changed_share"] = verdict.difference.changed_share
        for part in change["parts"]:
            part["movement"] = part["movement"] if math.isfinite(part["movement"]) else None
    return {
        "path": str(loaded.path),
        "manifest": loaded.manifest.model_dump(mode="json", by_alias=True),
        "bn_layers": [asdict(layer) for layer in layers],
        "lineage": told,
    }


def _show_facts(loaded: Checkpoint) -> None:
    manifest = loaded.manifest
    print_line(f"{manifest.name}  ({loaded.path})")
    for name, value in _facts(manifest).items():
        for i, line in enumerate(textwrap.wrap(value, 100, break_long_words=False, break_on_hyphens=False)):
            print_line(f"  {name if i == 0 else '':<14} {line}")


def _facts(manifest: Manifest) -> dict[str, str]:
    normalization = manifest.normalization
    trained = manifest.trained_parameters
    share = f", {_share(trained, manifest.parameters)} trained" if trained is not None else ""
    health = manifest.training.get("health", {})
    numbers = {n: v for n, v in manifest.training.items() if n not in ("command", "health")}
    facts = {
        "architecture": f"{manifest.architecture}, norm layer {manifest.norm_layer}",
        "arguments": listed_arguments(manifest.arguments),
        "images": f"{'x'.join(map(str, manifest.shape))}, {manifest.classes} classes",
        "normalization": f"mean {list(normalization.mean)}, std {list(normalization.std)}" if normalization else "none",
        "parameters": f"{manifest.parameters:,}{share}",
        "regime": manifest.regime,
        "parent": manifest.parent.name if manifest.parent else None,
        "data set": manifest.dataset,
        "threat model": manifest.threat,
        "training": ", ".join(f"{n} {_number(v)}" for n, v in numbers.items()),
        "health": ", ".join(f"{n} {_number(v)}" for n, v in health.items()),
        "command": manifest.training.get("command"),
        "source": manifest.source,
        "notes": "; ".join(manifest.notes),
        "assumed": "; ".join(manifest.assumed),
        "weights": manifest.weights_sha256,
    }
    return {name: str(value) for name, value in facts.items() if value}


def _number(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({100 * part / max(1, whole):.2f} %)"


def _show_layers(layers: tuple[BnLayer, ...]) -> None:
    from harness.checkpoints.lineage import NEAR_ZERO

    print_line()
    if not layers:
        print_line("no BN layers")
        return
    print_line(f"BN layers: mean [min, max] over channels; ~0 is the share of gammas below {NEAR_ZERO} in size")
    header = ["layer", "channels", "gamma", "~0", "beta", "running mean", "running variance", "batches"]
    rows = [
        [
            layer.name,
            layer.channels,
            _summary(layer.gamma),
            f"{100 * layer.gamma.near_zero:.0f} %" if layer.gamma else "-",
            _summary(layer.beta),
            _summary(layer.running_mean),
            _summary(layer.running_var),
            layer.batches,
        ]
        for layer in layers
    ]
    print_table(header, rows, right=["channels", "~0", "batches"])
    live = [layer.name for layer in layers if layer.statistics == "batch"]
    if live:
        print_line(f"{len(live)} of {len(layers)} layers normalise with the batch at hand: {', '.join(live)}")
    else:
        print_line("all of them normalise with their stored statistics")


def _summary(summary: Summary | None) -> str:
    return "-" if summary is None else f"{summary.mean:.2g} [{summary.min:.2g}, {summary.max:.2g}]"


def _show_lineage(verdict: Lineage) -> None:
    change = verdict.difference
    print_line()
    if change is not None:
        print_line(f"since {verdict.parent}:")
        rows = [
            [
                part.name,
                f"{len(part.changed)} of {part.tensors}",
                f"{part.changed_values:,} of {part.values:,}",
                "-"
                if not part.changed
                else f"{100 * part.movement:.3g} %"
                if math.isfinite(part.movement)
                else "from 0",
            ]
            for part in change.parts
        ]
        header = ["part", "tensors changed", "values changed", "moved by"]
        print_table(header, rows, right=header[1:])
        share = percent(change.changed_share) if change.changed_share >= 0.1 else f"{100 * change.changed_share:.2f} %"
        print_line(
            f"{change.changed_parameters:,} of {change.parameters:,} parameters lie in changed tensors ({share})"
        )
        alike = ", ".join(verdict.regimes) or "no registered regime"
        print_line("nothing changed" if change.nothing else f"this change is consistent with: {alike}")
    doubt = ", so the claim could not be verified" if verdict.unverified else ""
    print_line(f"{verdict.status}: {verdict.reason}{doubt}")
