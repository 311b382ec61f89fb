"""Evaluating checkpoints by name, finding what was evaluated before, and showing it."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.cli import _threats
from harness.cli._render import percent, print_line, print_table, progress
from harness.errors import InvalidInput
from harness.results import stats, store
from harness.results.record import Result
from harness.util.files import check_writable

if TYPE_CHECKING:
    from harness.datasets import Dataset
    from harness.threat import ThreatModel

__all__ = ["Outcome", "Request", "as_json", "evaluate_all", "show"]


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
    workers: int | Literal["auto"] = "auto"
    force: bool = False


@dataclass(frozen=True)
class Outcome:
    """A stored result, and whether it was run now or found."""

    path: Path
    result: Result
    ran: bool


def evaluate_all(names: list[str], request: Request) -> list[Outcome]:
    """Evaluate checkpoints one after the other; each result is stored before the next begins.

    Raises:
        HarnessError: anything that stands in the way; what can be known before the first run is.
    """
    from harness import checkpoints, datasets, suites
    from harness.threat import ThreatModel

    check_writable(request.root)
    suites.get(request.suite, ThreatModel(request.norm or "Linf", request.eps or "8/255"))
    for name in names:
        checkpoints.find(name, request.checkpoint_dir)
    loaded: dict[str, Dataset] = {}
    training: dict[str, Dataset] = {}
    outcomes = []
    for name in names:
        # libraries that print must not write into our output
        with redirect_stdout(sys.stderr):
            point = checkpoints.load(name, checkpoint_dir=request.checkpoint_dir)
            wanted = request.dataset or point.manifest.dataset
            if wanted is None:
                raise InvalidInput(f"the manifest of {name} names no data set: say which with --dataset")
            if wanted not in loaded:
                loaded[wanted] = datasets.load(
                    wanted, data_dir=request.data_dir, download=request.download, limit=request.limit
                )
            threat = _threats.choose(
                point.manifest, loaded[wanted], norm=request.norm, eps=request.eps, eps_units=request.eps_units
            )
            bn_data = None
            if request.bn_stats in ("clean", "adversarial"):
                source = request.bn_data or wanted
                if source not in training:
                    training[source] = datasets.load(
                        source, split="train", data_dir=request.data_dir, download=request.download
                    )
                bn_data = training[source]
            outcomes.append(_evaluate(point, loaded[wanted], threat, request, bn_data))
    return outcomes


def _evaluate(point: Any, dataset: Dataset, threat: ThreatModel, request: Request, bn_data: Dataset | None) -> Outcome:
    from harness import evaluation

    # what decides the outcome, and with it the identity
    deciding: dict[str, Any] = {
        "bn_stats": request.bn_stats,
        "bn_data": bn_data,
        "checkpoint_dir": request.checkpoint_dir,
        "seed": request.seed,
        "precision": request.precision,
        "batch_size": request.batch_size,
        "workers": request.workers,
    }
    identity = evaluation.evaluation_id(point, dataset, threat, request.suite, **deciding)
    known = store.find(request.root, identity)
    if known is not None and not request.force:
        return Outcome(known, store.read(known), ran=False)
    state = request.root / ".harness-state"
    with progress(f"{point.manifest.name}, {request.suite}") as report:
        done = evaluation.evaluate_checkpoint(
            point,
            dataset,
            threat=threat,
            suite=request.suite,
            device=request.device,
            progress=report,
            state_dir=state,
            compiled=request.compiled,
            graphs=request.graphs,
            **deciding,
        )
    path = store.save(done.result, done.verdicts, request.root, force=request.force)
    with suppress(OSError):  # the folder of saved states stays while another evaluation has its state there
        state.rmdir()
    return Outcome(path, store.read(path), ran=True)


def as_json(outcome: Outcome) -> dict[str, Any]:
    """What ``harness evaluate --json`` prints of one evaluation."""
    result = outcome.result
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
        "result": str(outcome.path.resolve()),
        "evaluation_id": result.evaluation_id,
        "ran": outcome.ran,
        "seconds": result.seconds,
    }


def show(outcome: Outcome) -> None:
    """One evaluation for people, on stdout."""
    result = outcome.result
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
    found = "" if outcome.ran else "  (found, not run again; --force runs it)"
    print_line(f"result {outcome.path}{found}")
    print_line()
