"""Evaluating checkpoints by name, finding what was evaluated before, and showing it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.cli import _threats
from harness.cli._render import percent, print_line, print_table
from harness.errors import HarnessError, InvalidInput
from harness.results import stats
from harness.util.files import check_writable

if TYPE_CHECKING:
    from harness.checkpoints import Checkpoint, Manifest
    from harness.datasets import Dataset
    from harness.engine.types import AttackProgress
    from harness.evaluation import Plan, Stored, StoredPart
    from harness.results.parts import Shard

__all__ = [
    "Planner",
    "Request",
    "as_json",
    "evaluate_all",
    "evaluate_shards",
    "remove_empty",
    "run_plan",
    "show",
]

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
    split: str = "test"
    classes: tuple[str, ...] | None = None
    resize: int | None = None
    crop: int | None = None
    interpolation: str = "bilinear"
    limit: int | None = None
    checkpoint_dir: Path | None = None
    batch_size: int | Literal["auto"] = "auto"
    device: str | None = None
    seed: int = 0
    precision: str = "auto"
    compiled: bool = False
    graphs: bool | None = None
    checks: tuple[str, ...] = ()
    workers: int | Literal["auto"] = "auto"
    deterministic: bool = False
    adversarial: bool = True
    force: bool = False
    tracker: str | None = None


def evaluate_all(names: list[str], request: Request) -> list[Stored]:
    """Evaluate checkpoints one after the other; each result is stored before the next begins.

    Raises:
        HarnessError: anything that stands in the way; what can be known before the first attack is.
    """
    check_writable(request.root)
    planner = Planner()
    # libraries that print must not write into our output
    with redirect_stdout(sys.stderr):
        return [run_plan(plan, request) for plan in [planner.checked(name, request) for name in names]]


def evaluate_shards(asked: Sequence[tuple[str, Request]], text: str) -> list[StoredPart]:
    """Attack one shard of every evaluation; each part is stored before the next begins.

    One that cannot be planned stops no other.

    Args:
        asked: names of checkpoints, each with what to evaluate it on.
        text: which shard, as `harness.results.parts.Shard.parse` reads it.

    Raises:
        HarnessError: as `evaluate_all`, when the others are done.
    """
    from harness import evaluation
    from harness.results.parts import Shard

    shard = Shard.parse(text, os.environ)
    check_writable(asked[0][1].root)
    planner = Planner()
    failed: list[str] = []
    with redirect_stdout(sys.stderr):
        plans: list[tuple[Plan, Request]] = []
        for name, request in asked:
            try:
                plan = planner.plan(name, request)
                evaluation.place(evaluation.shard_plan(plan, shard))
                plans.append((plan, request))
            except HarnessError as error:
                if len(asked) == 1:
                    raise
                failed.append(f"{name}, {request.suite}: {error}")
        done = [_run_shard(plan, shard, request) for plan, request in plans]
    if failed:
        raise HarnessError(
            f"{len(failed)} of {len(asked)} evaluations failed, the others are stored: {'; '.join(failed)}"
        )
    return done


def _run_shard(plan: Plan, shard: Shard, request: Request) -> StoredPart:
    from harness import evaluation
    from harness.evaluation.display import displayed
    from harness.evaluation.time_left import TimeLeft

    time_left = TimeLeft.of(plan)
    with displayed(f"{plan.target.name}, {plan.suite.name}", f"shard {shard}", time_left=time_left) as report:
        part = evaluation.obtain_part(plan, shard, request.root, force=request.force, progress=report)
    remove_empty(plan.settings.state_dir)
    return part


class Planner:
    """Makes plans of checkpoints by name; the last checkpoint and all data sets stay loaded."""

    def __init__(self) -> None:
        self._datasets: dict[tuple[object, ...], Dataset] = {}
        self._checkpoint = lru_cache(maxsize=1)(self._load_checkpoint)

    def checked(self, name: str, request: Request) -> Plan:
        """A plan that can be run here, as far as that can be known.

        Raises:
            HarnessError: what stands in the way.
        """
        from harness import evaluation

        plan = self.plan(name, request)
        if request.force or evaluation.find(plan, request.root) is None:
            evaluation.place(plan)
        return plan

    def plan(self, name: str, request: Request) -> Plan:
        """The evaluation that a request means for a checkpoint.

        Raises:
            HarnessError: what stands in the way.
        """
        from harness import evaluation

        point = self._checkpoint(name, request.checkpoint_dir)
        wanted = request.dataset or point.manifest.dataset
        if wanted is None:
            raise InvalidInput(f"the manifest of {name} names no data set: say which with --dataset")
        known = _known_classes(point.manifest)
        dataset = self._dataset(wanted, request.split, request.limit, request, known)
        estimated = request.bn_stats in ("clean", "adversarial")
        return evaluation.plan_checkpoint(
            point,
            dataset,
            threat=_threats.choose(
                point.manifest, dataset, norm=request.norm, eps=request.eps, eps_units=request.eps_units
            ),
            suite=request.suite,
            bn_stats=request.bn_stats,
            bn_data=self._dataset(request.bn_data or wanted, "train", None, request, known) if estimated else None,
            checkpoint_dir=request.checkpoint_dir,
            state_dir=request.root / ".harness-state",
            **{name: getattr(request, name) for name in _SETTINGS},
        )

    def _dataset(
        self, name: str, split: str, limit: int | None, request: Request, known_classes: tuple[str, ...]
    ) -> Dataset:
        from harness import datasets

        form = datasets.Form(request.resize, request.crop, request.interpolation)
        how = (request.data_dir, request.download, request.classes, known_classes, form)
        key = (name, split, limit, *how)
        if key not in self._datasets:
            data_dir, download, classes, known, form = how
            self._datasets[key] = datasets.load(
                name,
                split=split,
                limit=limit,
                data_dir=data_dir,
                download=download,
                classes=classes,
                known_classes=known,
                form=form,
            )
        return self._datasets[key]

    @staticmethod
    def _load_checkpoint(name: str, checkpoint_dir: Path | None) -> Checkpoint:
        from harness import checkpoints

        return checkpoints.load(name, checkpoint_dir=checkpoint_dir)


def _known_classes(manifest: Manifest) -> tuple[str, ...]:
    """The classes of the data set that a checkpoint was made for: their names, or else their numbers."""
    from harness import datasets

    if manifest.dataset in datasets.names():
        return datasets.about(str(manifest.dataset)).classes
    return tuple(map(str, range(manifest.classes)))


def run_plan(plan: Plan, request: Request, label: str = "", later: int = 0) -> Stored:
    """Find or run a plan, with its progress on stderr.

    Args:
        label: begins every line of it. later: how many such evaluations come after it.
    """
    from harness import evaluation
    from harness.evaluation.display import displayed
    from harness.evaluation.time_left import TimeLeft
    from harness.trackers import tracked

    time_left = TimeLeft.of(plan, later=later)
    target, threat = plan.target, plan.threat
    run = f"{target.name} {plan.suite.name} {threat.norm} {threat.eps} seed {plan.settings.seed}"
    about = plan.about | {"seed": plan.settings.seed, "evaluation_id": plan.evaluation_id}
    with (
        tracked(request.tracker, run, about, len(plan.samples[1])) as track,
        displayed(f"{label}{target.name}", plan.suite.name, time_left=time_left) as report,
    ):

        def progress(done: AttackProgress) -> None:
            track(done)
            if report is not None:
                report(done)

        stored = evaluation.obtain(
            plan, request.root, adversarial=request.adversarial, force=request.force, progress=progress
        )
        track.finish(stored.result)
    remove_empty(plan.settings.state_dir)
    return stored


def remove_empty(state_dir: Path | None) -> None:
    """Remove the folder of saved states if nothing is in it."""
    if state_dir is not None:
        with suppress(OSError):  # the folder of saved states stays while another evaluation has its state there
            state_dir.rmdir()


def as_json(stored: Stored) -> dict[str, Any]:
    """What ``harness evaluate --json`` prints of one evaluation."""
    from harness.results.heading import heading

    result = stored.result
    return {
        **heading(result),
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
    # without an attack nothing is known of robustness
    robust = (("robust", result.robust_acc),) if result.steps else ()
    for name, value in (("clean", result.clean_acc), *robust):
        low, high = stats.wilson(round(value * result.n), result.n)
        print_line(f"{name:7}{percent(value)}  (95 % interval {percent(low)} to {percent(high)})")
    for flag in result.flags:
        print_line(flag.line)
    print_line(f"result {stored.path}{_found(stored)}")
    print_line()


def _found(stored: Stored) -> str:
    if stored.ran:
        return ""
    source = f"verdicts of {stored.result.verdicts_from}" if stored.result.verdicts_from else "found"
    return f"  ({source}, not run again; --force runs it)"
