"""What AutoAttack's verdict costs, ours against the reference, in one interleaved run.

``python -m benchmarks.autoattack [--cases NAME ...] [--material DIR] [--json FILE]``

Each side runs in a process of its own (the shortest case three times in each, of which the median counts, as
the first also pays for what a process loads once); ours runs before and after each run of the reference, so that a
machine whose speed drifts is seen to drift. Ratios compare medians. Nothing else should run meanwhile. Seconds over
those of the passes are given twice: as the passes took in their places, and as they take bare, in a loop of their own;
for the latter ours runs once more at the end, and some of its passes are made again at once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._foreign import add_material

__all__ = ["CASES", "main", "run_side"]


@dataclass(frozen=True)
class Case:
    """One row: what runs on both sides."""

    name: str
    model: str
    n: int
    threat: str
    rounds: int = 1
    repeats: int = 1
    precision: str = "fp32"
    workers: int = 1
    reference_threads: int = 1
    reference_of: str | None = None


CASES = (
    Case("natural", "resnet32_natural.pt", 100, "Linf:8/255", rounds=2, repeats=3),
    Case("mnist", "mnist_lenet5_advtrained.pt", 50, "Linf:0.3", rounds=2),
    Case("robust", "resnet32_at_all.pt", 40, "Linf:8/255"),
    Case("robust-bf16", "resnet32_at_all.pt", 40, "Linf:8/255", precision="bf16", reference_of="robust"),
    Case("robust-2-cores", "resnet32_at_all.pt", 40, "Linf:8/255", workers=2, reference_threads=2),
)

# budgets cut down, because only the course of the cost against n is asked for
_SHORT = [
    ["apgd-ce", "apgd", {"loss": "ce", "steps": 20}],
    ["apgd-t", "apgd", {"loss": "dlr-targeted", "steps": 10, "targets": 2}],
    ["fab-t", "fab", {"targeted": True, "steps": 10, "targets": 2}],
    ["square", "square", {"queries": 40}],
]


def run_side(side: str, material: Path, **job: Any) -> dict[str, Any]:
    """Run one side in a fresh process with ``threads`` threads; returns what it printed."""
    full = {
        "side": side,
        "material": str(material),
        "seed": 0,
        "threads": 1,
        "workers": 1,
        "precision": "fp32",
        "suite": "autoattack",
        "batch_size": None,
        "repeats": 1,
        "source": job["n"],
        **job,
    }
    threads = str(full["threads"])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._side", json.dumps(full)],
        env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def main() -> None:
    """Run the cases and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_material(parser)
    extras = ("against-n", "memory")
    parser.add_argument("--cases", nargs="+", choices=[*(case.name for case in CASES), *extras])
    parser.add_argument("--json", type=Path, help="write all figures to this file as well")
    options = parser.parse_args()
    wanted = options.cases or [*(case.name for case in CASES), *extras]
    record: dict[str, Any] = {"machine": machine(), "cases": {}}
    console = Console(width=150)
    console.print(f"[bold]{record['machine']}[/]")
    known: dict[str, list[dict[str, Any]]] = {}
    table = Table("case", "reference s", "ours s", "times faster", "passes", "verdicts", "over passes, bare", "peak MB")
    for case in CASES:
        if case.name in wanted:
            row, figures = _compare(case, options.material, known)
            table.add_row(*row)
            record["cases"][case.name] = figures
            console.print(f"done: {' | '.join(row)}")
            _write(options.json, record)
    console.print(table)
    if "against-n" in wanted:
        record["against-n"] = _against_n(console, options.material)
        _write(options.json, record)
    if "memory" in wanted:
        record["memory"] = _memory(console, options.material)
        _write(options.json, record)


def machine() -> str:
    """Processor, cores, versions and date in one line."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "pyautoattack"))
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}, {date.today()}"


def _compare(case: Case, material: Path, known: dict[str, list[dict[str, Any]]]) -> tuple[list[str], dict[str, Any]]:
    # at equal batch size, as memory is compared as well
    common = {"model": case.model, "n": case.n, "threat": case.threat, "repeats": case.repeats, "batch_size": case.n}
    mine = {**common, "precision": case.precision, "workers": case.workers}
    ours, theirs = [run_side("ours", material, **mine)], list(known.get(case.reference_of or "", []))
    borrowed = bool(theirs)
    rounds = 2 if borrowed else case.rounds
    for turn in range(rounds):
        if not borrowed:
            theirs.append(run_side("reference", material, **common, threads=case.reference_threads))
        at_last = turn == rounds - 1
        ours.append(run_side("ours", material, **mine, pure=at_last and case.workers == 1))
    known[case.name] = theirs
    ours_seconds = statistics.median(side["seconds"] for side in ours)
    their_seconds = statistics.median(side["seconds"] for side in theirs)
    first, last = theirs[0], ours[-1]
    differ = sum(a != b for a, b in zip(first["robust"], last["robust"], strict=True))
    over = statistics.median(side["over_passes"] for side in ours) if case.workers == 1 else None
    bare = over * ours[-1]["slower_than_bare"] if over else None
    row = [
        case.name,
        f"{their_seconds:.1f}",
        f"{ours_seconds:.2f}",
        f"{their_seconds / ours_seconds:.2f}",
        f"{first['passes']:,} / {last['passes']:,}",
        f"{sum(first['robust'])} / {sum(last['robust'])} robust, {differ} differ",
        f"{over:.3f} / {bare:.3f}" if over else "-",
        " / ".join(f"{statistics.median(side['peak_mb'] for side in sides):.0f}" for sides in (theirs, ours)),
    ]
    figures = {
        "reference_seconds": [side["seconds"] for side in theirs],
        "ours_seconds": [side["seconds"] for side in ours],
        "speedup": their_seconds / ours_seconds,
        "passes": [first["passes"], last["passes"]],
        "robust": [sum(first["robust"]), sum(last["robust"])],
        "differ": differ,
        "over_seconds_in_passes": [side["over_passes"] for side in ours],
        "over_bare_passes": bare,
        "peak_mb": [[side["peak_mb"] for side in sides] for sides in (theirs, ours)],
        "reference_steps": first["steps"],
        "ours_steps": last["steps"],
        "passes_made": last["passes_made"],
    }
    return row, figures


def _against_n(console: Console, material: Path) -> list[dict[str, float]]:
    table = Table("images", "seconds", "ms an image", "passes an image", title="cost against n, budgets cut down")
    rows = []
    for n in (50, 100, 200, 400):
        runs = [
            run_side("ours", material, model="resnet32_at_all.pt", n=n, threat="Linf:8/255", suite=_SHORT)
            for _ in range(3)
        ]
        seconds = statistics.median(run["seconds"] for run in runs)
        rows.append({"n": n, "seconds": seconds, "passes": runs[0]["passes"]})
        table.add_row(str(n), f"{seconds:.2f}", f"{1000 * seconds / n:.1f}", f"{runs[0]['passes'] / n:.1f}")
    console.print(table)
    return rows


def _memory(console: Console, material: Path) -> dict[str, float]:
    """Peak memory at equal batch size, and of a pool of 10,000 images beside what a process needs at all."""
    cut = [
        ["apgd-ce", "apgd", {"loss": "ce", "steps": 2}],
        ["apgd-t", "apgd", {"loss": "dlr-targeted", "steps": 2, "targets": 2}],
        ["fab-t", "fab", {"targeted": True, "steps": 2, "targets": 2}],
        ["square", "square", {"queries": 2}],
    ]
    job = {"model": "resnet32_at_all.pt", "threat": "Linf:8/255", "batch_size": 100}
    bare = run_side("ours", material, **job, n=4, suite="clean")["peak_mb"]
    pool = run_side("ours", material, **job, n=10_000, source=600, suite=cut)["peak_mb"]
    theirs = run_side("reference", material, **{**job, "model": "resnet32_natural.pt"}, n=100)["peak_mb"]
    ours = run_side("ours", material, **{**job, "model": "resnet32_natural.pt"}, n=100)["peak_mb"]
    console.print(f"peak memory, 100 images at batch 100: reference {theirs:.0f} MB, ours {ours:.0f} MB")
    console.print(f"a pool of 10,000 images: {pool:.0f} MB, of which {bare:.0f} MB are Python, torch and the model")
    return {"reference_mb": theirs, "ours_mb": ours, "pool_mb": pool, "bare_mb": bare}


def _write(path: Path | None, record: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
