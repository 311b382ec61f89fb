"""Evaluating checkpoints by name, finding what was evaluated before, and showing it."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.cli import _threats
from harness.cli._render import percent, print_line, print_table, progress
from harness.errors import InvalidInput
from harness.results import stats
from harness.util.files import check_writable

if TYPE_CHECKING:
    from harness.datasets import Dataset
    from harness.evaluation import Plan, Stored, StoredPart
    from harness.results.parts import Shard

__all__ = ["Request", "as_json", "evaluate_all", "evaluate_shards", "plans_of", "remove_empty", "show"]

_SETTINGS = ("seed", "precision", "batch_size", "workers", "deterministic", "device", "compiled", "graphs", "checks")


@dataclass(frozen=True)
class Request:
    """What to evaluate on, and how. What is None is taken from the checkpoint's manifest."""

    root: Path
    suite: str
    dataset: str | None = None
    norm: str | None = None
    eps: str | None = None
    eps_units: str = "pixel"
    bn_stats: str = "stored"
    bn_data: str | None = None
    data_dir: Path | None = None
    download: bool = False
    limit: int | None = None
    checkpoint_dir: Path | None = None
    batch_size: int | Literal["auto"] = "auto"
    device: str | None = None
    seed: int = 0
    precision: str = "fp32"
    compiled: bool = False
    graphs: bool = False
    checks: tuple[str, ...] = ()
    workers: int | Literal["auto"] = "auto"
    deterministic: bool = False
    adversarial: bool = True
    force: bool = False


def evaluate_all(names: list[str], request: Request) -> list[Stored]:
    """Evaluate checkpoints one after the other; each result is stored before the next begins.

    Raises:
        HarnessError: anything that stands in the way; what can be known before the first attack is.
    """
    from harness import evaluation

    check_writable(request.root)
    # libraries that print must not write into our output
    with redirect_stdout(sys.stderr):
        plans = plans_of(names, request)
        for plan in plans:
            if request.force or evaluation.find(plan, request.root) is None:
                evaluation.place(plan)
        return [_obtain(plan, request) for plan in plans]


def evaluate_shards(names: list[str], request: Request, text: str) -> list[StoredPart]:
    """Attack one shard of every evaluation; each part is stored before the next begins.

    Args:
        text: which shard, as `harness.results.parts.Shard.parse` reads it.

    Raises:
        HarnessError: as `evaluate_all`.
    """
    from harness import evaluation
    from harness.results.parts import Shard

    shard = Shard.parse(text, os.environ)
    check_writable(request.root)
    with redirect_stdout(sys.stderr):
        plans = plans_of(names, request)
        for plan in plans:
            evaluation.place(evaluation.shard_plan(plan, shard))
        return [_obtain_part(plan, shard, request) for plan in plans]


def _obtain_part(plan: Plan, shard: Shard, request: Request) -> StoredPart:
    from harness import evaluation

    with progress(f"{plan.target.name}, {plan.suite.name}, shard {shard}") as report:
        part = evaluation.obtain_part(plan, shard, request.root, force=request.force, progress=report)
    remove_empty(plan.settings.state_dir)
    return part


def plans_of(names: list[str], request: Request) -> list[Plan]:
    """The plans of a request, nothing of which has run."""
    from harness import checkpoints, datasets, evaluation

    @cache
    def loaded(name: str, split: str, limit: int | None) -> Dataset:
        return datasets.load(name, split=split, data_dir=request.data_dir, download=request.download, limit=limit)

    for name in names:
        checkpoints.find(name, request.checkpoint_dir)
    plans = []
    for name in names:
        point = checkpoints.load(name, checkpoint_dir=request.checkpoint_dir)
        wanted = request.dataset or point.manifest.dataset
        if wanted is None:
            raise InvalidInput(f"the manifest of {name} names no data set: say which with --dataset")
        dataset = loaded(wanted, "test", request.limit)
        estimated = request.bn_stats in ("clean", "adversarial")
        plan = evaluation.plan_checkpoint(
            point,
            dataset,
            threat=_threats.choose(
                point.manifest, dataset, norm=request.norm, eps=request.eps, eps_units=request.eps_units
            ),
            suite=request.suite,
            bn_stats=request.bn_stats,
            bn_data=loaded(request.bn_data or wanted, "train", None) if estimated else None,
            checkpoint_dir=request.checkpoint_dir,
            state_dir=request.root / ".harness-state",
            **{name: getattr(request, name) for name in _SETTINGS},
        )
        plans.append(plan)
    return plans


def _obtain(plan: Plan, request: Request) -> Stored:
    from harness import evaluation

    with progress(f"{plan.target.name}, {plan.suite.name}") as report:
        stored = evaluation.obtain(
            plan, request.root, adversarial=request.adversarial, force=request.force, progress=report
        )
    remove_empty(plan.settings.state_dir)
    return stored


def remove_empty(state_dir: Path | None) -> None:
    """Remove the folder of saved states if nothing is in it."""
    if state_dir is not None:
        with suppress(OSError):  # the folder of saved states stays while another evaluation has its state there
            state_dir.rmdir()


def as_json(stored: Stored) -> dict[str, Any]:
    """What ``harness evaluate --json`` prints of one evaluation."""
    result = stored.result
    return {
        "checkpoint": result.checkpoint,
        "bn_stats": result.model.bn_stats,
        "dataset": result.dataset.name,
        "split": result.dataset.split,
        "threat": f"{result.threat.norm}:{result.threat.eps}",
        "suite": result.suite,
        "seed": result.seed,
        "n": result.n,
        "partial": result.partial,
        "clean_acc": result.clean_acc,
        "robust_acc": result.robust_acc,
        "steps": [step.model_dump() for step in result.steps],
        "flags": [flag.model_dump() for flag in result.flags],
        "result": str(stored.path.resolve()),
        "evaluation_id": result.evaluation_id,
        "ran": stored.ran,
        "seconds": result.seconds,
    }


def show(stored: Stored) -> None:
    """One evaluation for people, on stdout."""
    result = stored.result
    images = f"{result.n:,} of {result.dataset.size:,}" if result.partial else f"{result.n:,}"
    print_line(
        f"{result.label}: {result.suite} on {images} {result.dataset.name} {result.dataset.split} "
        f"images, {result.threat.norm} {result.threat.eps}"
    )
    if result.steps:
        header = ("step", "before", "after", "forward", "backward", "seconds")
        rows = [(s.name, s.before, s.after, s.forward, s.backward, f"{s.seconds:.1f}") for s in result.steps]
        print_table(header, rows, right=header[1:])
    for name, value in (("clean", result.clean_acc), ("robust", result.robust_acc)):
        low, high = stats.wilson(round(value * result.n), result.n)
        print_line(f"{name:7}{percent(value)}  (95 % interval {percent(low)} to {percent(high)})")
    for flag in result.flags:
        print_line(f"{flag.severity:7}{flag}")
    print_line(f"result {stored.path}{_found(stored)}")
    print_line()


def _found(stored: Stored) -> str:
    if stored.ran:
        return ""
    source = f"verdicts of {stored.result.verdicts_from}" if stored.result.verdicts_from else "found"
    return f"  ({source}, not run again; --force runs it)"
