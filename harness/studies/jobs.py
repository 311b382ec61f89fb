"""What the jobs of a study do: train one network, evaluate one network in one way."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from harness import checkpoints, evaluation, training
from harness.checkpoints import Checkpoint
from harness.engine.types import AttackProgress
from harness.errors import InvalidInput
from harness.studies.planning import Measure, Member, Plan
from harness.util.pool import Report

__all__ = ["Folders", "evaluate_one", "find_result", "load", "plan_one", "train_one"]


class Folders:
    """Where a study keeps what it makes."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.checkpoints = output / "checkpoints"
        self.results = output / "results"
        self.training = output / ".training"
        self.evaluation = output / ".evaluation"

    def clear_states(self) -> None:
        """Remove what is left of states when nothing is in flight."""
        for folder in (self.training, self.evaluation):
            with suppress(OSError):
                folder.rmdir()


def load(plan: Plan, member: Member, seed: int, folders: Folders) -> Checkpoint:
    """The network of a member and seed.

    Raises:
        CheckpointError: it has not been trained.
    """
    if member.source is not None:
        return member.source
    return checkpoints.load(folders.checkpoints / plan.names[member.label, seed])


def train_one(
    plan: Plan, member: Member, seed: int, folders: Folders, report: Report, *, device: str, command: str | None
) -> str:
    """Train a member under a seed and register it; returns its path.

    Raises:
        InvalidInput: the loss diverged; the last finite state is kept beside the others.
    """
    regime, settings, data = member.regime, member.settings, plan.train_set
    if regime is None or settings is None or data is None:
        raise InvalidInput(f"{member.label} is there already and is not trained")
    name = plan.names[member.label, seed]
    _, written = training.train_and_register(
        regime,
        dataset=data,
        settings=settings.model_copy(update={"seed": seed}),
        architecture=member.architecture,
        parent=load(plan, plan.member(member.parent), seed, folders) if member.parent else None,
        device=device,
        directory=folders.checkpoints,
        name=name,
        kept=plan.study.keep,
        command=command,
        progress=lambda tick: report(tick.done, f"epoch {tick.epoch} of {tick.epochs}"),
        # of its own: the folder is removed when its run ends, and others are still running
        state_dir=folders.training / name,
    )
    return str(written.last or written.best)


def find_result(plan: Plan, point: Checkpoint, measure: Measure, folders: Folders) -> Path | None:
    """The stored result of a network, or None."""
    known = evaluation.find(plan_one(plan, point, measure, folders), folders.results)
    return None if known is None else known.path


def evaluate_one(
    plan: Plan, member: Member, seed: int, measure: Measure, folders: Folders, report: Report, *, device: str
) -> str:
    """Evaluate a member's network in one way, unless that is stored; returns the result's path."""

    def told(tick: AttackProgress) -> None:
        report(tick.done, f"{tick.step}, {tick.surviving} of {tick.total} surviving")

    planned = plan_one(
        plan, load(plan, member, seed, folders), measure, folders, device=device, state_dir=folders.evaluation
    )
    return str(evaluation.obtain(planned, folders.results, progress=told).path)


def plan_one(plan: Plan, point: Checkpoint, measure: Measure, folders: Folders, **settings: Any) -> evaluation.Plan:
    """The evaluation of a network in one way."""
    return evaluation.plan_checkpoint(
        point,
        plan.test_set,
        threat=measure.threat,
        suite=measure.asked,
        bn_stats=measure.bn_stats,
        bn_data=plan.train_set if measure.bn_stats in ("clean", "adversarial") else None,
        checkpoint_dir=_parents_folder(plan, point, folders),
        workers=1,
        **settings,
    )


def _parents_folder(plan: Plan, point: Checkpoint, folders: Folders) -> Path | None:
    """Where the parent of a network lies: a checkpoint that is there already is not among the study's own."""
    named = point.manifest.parent
    for member in plan.members:
        source = member.source
        if source is not None and named is not None and source.manifest.weights_sha256 == named.weights_sha256:
            return source.path.parent
    return folders.checkpoints if folders.checkpoints.is_dir() else None
