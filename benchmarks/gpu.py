"""AutoAttack on a GPU, ours against the reference, in one interleaved run.

``python -m benchmarks.gpu [--material DIR] [--json FILE] [--cases robust wide]``

Two cases: `resnet32_at_all.pt` on 600 images, and a WRN-28-10 with random weights that is asked to keep its own
predictions on 256 images, at a radius at which samples survive. Precisions, CUDA graphs and torch.compile are
each reported on their own, with passes per second and the share of the time that goes into passes (the ceiling).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks._foreign import WIDE, add_material
from benchmarks.autoattack import machine, run_side

__all__ = ["main"]

_CASES: dict[str, dict[str, Any]] = {
    "robust": {"model": "resnet32_at_all.pt", "n": 600, "threat": "Linf:8/255"},
    "wide": {"model": WIDE, "n": 256, "threat": "Linf:0.25/255"},
}
_WAYS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "tf32": {"precision": "tf32"},
    "bf16": {"precision": "bf16"},
    "fp32, graphs": {"precision": "fp32", "graphs": True},
    "tf32, graphs": {"precision": "tf32", "graphs": True},
    "fp32, compile": {"precision": "fp32", "compiled": True},
    "bf16, compile": {"precision": "bf16", "compiled": True},
}


def main() -> None:
    """Run the cases and print a table each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_material(parser)
    parser.add_argument("--cases", nargs="+", choices=list(_CASES), default=list(_CASES))
    parser.add_argument("--ways", nargs="+", choices=list(_WAYS), default=list(_WAYS))
    parser.add_argument("--json", type=Path, help="write all figures to this file as well")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("there is no GPU here: nothing was measured")
    record: dict[str, Any] = {"machine": f"{torch.cuda.get_device_name()}, {machine()}", "cases": {}}
    console = Console(width=150)
    console.print(f"[bold]{record['machine']}[/]")
    for name in options.cases:
        job = {**_CASES[name], "device": "cuda", "source": min(600, _CASES[name]["n"])}
        table = Table("way", "seconds", "times faster", "robust", "differ", "passes/s", "share of ceiling", title=name)
        before = {way: run_side("ours", options.material, **job, **_WAYS[way]) for way in options.ways}
        theirs = run_side("reference", options.material, **job)
        table.add_row("reference", f"{theirs['seconds']:.1f}", "1", str(sum(theirs["robust"])), "-", "-", "-")
        rows = {"reference": theirs}
        for way in options.ways:
            after = run_side("ours", options.material, **job, **_WAYS[way])
            seconds = min(before[way]["seconds"], after["seconds"])
            table.add_row(
                way,
                f"{before[way]['seconds']:.1f}, {after['seconds']:.1f}",
                f"{theirs['seconds'] / seconds:.2f}",
                str(sum(after["robust"])),
                str(sum(a != b for a, b in zip(theirs["robust"], after["robust"], strict=True))),
                f"{after['passes'] / seconds:,.0f}",
                f"{after['model_seconds'] / after['seconds']:.0%}",
            )
            rows[way] = after
        console.print(table)
        record["cases"][name] = rows
        if options.json is not None:
            options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
