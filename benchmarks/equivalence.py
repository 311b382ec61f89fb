"""Whether our AutoAttack gives the reference's verdicts, on public models that nobody here trained.

``python -m benchmarks.equivalence [--n 100] [--models NAME ...] [--cache DIR] [--material DIR] [--json FILE]``

The reference takes minutes a model, so its verdicts can be kept: with ``--cache`` a verdict that was reached
on the same weights, images, threat model, seed and version of the reference is not reached again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._foreign import MODELS, add_material, load, samples
from benchmarks.autoattack import machine, run_side
from harness.checkpoints import weights_sha256

__all__ = ["CASES", "main"]

_LINF = "Linf:8/255"


@dataclass(frozen=True)
class Case:
    """A model and a threat model."""

    model: str
    threat: str


CASES = (
    *(Case(name, "Linf:0.3" if name.startswith("mnist") else _LINF) for name in MODELS),
    *(
        Case(name, threat)
        for name in ("resnet32_natural.pt", "resnet32_at_then_nt_init_block1.pt", "resnet32_at_all.pt")
        for threat in ("L2:0.5", "L1:12")
    ),
)


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_material(parser)
    parser.add_argument("--n", type=int, default=100, help="images a model")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), help="only these")
    parser.add_argument("--threats", nargs="+", help="only these")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--workers", type=int, default=2, help="processes of ours; verdicts do not depend on it")
    parser.add_argument("--cache", type=Path, help="folder where verdicts of the reference are kept")
    parser.add_argument("--json", type=Path, help="write all figures to this file as well")
    options = parser.parse_args()
    console, rows = Console(width=150), []
    console.print(f"[bold]{machine()}[/]; {options.n} images a model, seed 0, {options.precision}")
    table = Table("model", "threat", "clean", "reference", "ours", "differ", "ours by step", "within 1 / 2")
    for case in CASES:
        if options.models and case.model not in options.models:
            continue
        if options.threats and case.threat not in options.threats:
            continue
        job = {"model": case.model, "n": options.n, "threat": case.threat, "batch_size": options.n}
        theirs = _reference(job, options.material, options.cache)
        ours = run_side("ours", options.material, **job, precision=options.precision, workers=options.workers)
        differ = sum(a != b for a, b in zip(theirs["robust"], ours["robust"], strict=True))
        counts = sum(theirs["robust"]), sum(ours["robust"])
        good = abs(counts[0] - counts[1]) <= 1 and differ <= 2
        clean = ours["steps"][0][1]
        steps = ", ".join(f"{name} {after}" for name, _, after, *_ in ours["steps"])
        row = [case.model, case.threat, str(clean), *map(str, counts), str(differ), steps, "yes" if good else "NO"]
        table.add_row(*row)
        console.print(" | ".join(row))
        rows.append(
            {**job, "clean": clean, "reference": counts[0], "ours": counts[1], "differ": differ, "steps": ours["steps"]}
        )
        if options.json is not None:
            record = {"machine": machine(), "precision": options.precision, "rows": rows}
            options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    console.print(table)


def _reference(job: dict[str, Any], material: Path, cache: Path | None) -> dict[str, Any]:
    key = {
        **job,
        "seed": 0,
        "weights": weights_sha256(load(job["model"], material)),
        "images": hashlib.sha256(samples(job["model"], job["n"], material)[0].numpy().tobytes()).hexdigest(),
        "pyautoattack": metadata.version("pyautoattack"),
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = None if cache is None else cache / f"{Path(job['model']).stem}-{name}.json"
    if path is not None and path.is_file():
        held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return held
    answer = run_side("reference", material, **job)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"key": key, **answer}) + "\n", encoding="utf-8")
    return answer


if __name__ == "__main__":
    main()
