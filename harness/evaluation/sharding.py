"""One shard of an evaluation: its part of the samples is attacked, and what was found is stored as a part.

`harness.results.joining` makes one result of the parts.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from harness import attacks
from harness.engine.snapshots import State
from harness.engine.types import AttackProgress
from harness.errors import InvalidInput, ResultError
from harness.evaluation import _evaluate, reference
from harness.evaluation.plan import Plan
from harness.evaluation.stored import running_alone
from harness.results import parts
from harness.results.parts import Part, PartRecord, Shard

__all__ = ["StoredPart", "obtain_part", "part_of", "refuse_stranger", "run_part", "shard_plan"]

# whether an attack makes backward passes does not depend on the number of classes
_MANY_CLASSES = 1000


@dataclass(frozen=True)
class StoredPart:
    """A part in its file.

    Attributes:
        ran: whether it was attacked for it now.
    """

    path: Path
    part: Part
    ran: bool = False


def shard_plan(plan: Plan, shard: Shard) -> Plan:
    """The plan of one shard. Its verdicts, points and passes are those that the samples have in the whole.

    Raises:
        InvalidInput: samples of this evaluation depend on each other, or there are fewer than shards.
    """
    if reference.runs(plan.suite):
        raise InvalidInput(
            f"the suite {plan.suite.name} calls the reference AutoAttack, whose random numbers depend on the batch, so "
            "that it cannot be cut into shards; use --suite autoattack"
        )
    if plan.target.statistics.kind == "batch":
        raise InvalidInput(
            "with --bn-stats batch a prediction depends on the other samples, so that they cannot be cut into shards"
        )
    shard.rows(len(plan.target.x))
    return replace(plan, settings=replace(plan.settings, deterministic=True), part=shard)


def obtain_part(
    plan: Plan,
    shard: Shard,
    root: Path,
    *,
    force: bool = False,
    progress: Callable[[AttackProgress], None] | None = None,
) -> StoredPart:
    """The part of a shard: found under the folder of the results, or else run and stored there.

    Args:
        plan: of the whole evaluation.
        force: run it, whatever is stored, and replace that.

    Raises:
        InvalidInput: the evaluation cannot be cut so.
        ResultError: the part that is there is damaged, was changed, or is of another evaluation.
    """
    cut = shard_plan(plan, shard)
    path = parts.path_of(root, plan.evaluation_id, shard)
    if path.exists():
        cut.state.clear_if_older(path)

    def waits() -> None:  # whoever ends a process that says nothing must hear of one that only waits
        if progress is not None:
            progress(AttackProgress("waiting for another process", 0.0, 0, 0))

    with nullcontext() if path.exists() and not force else running_alone(cut, root, meanwhile=waits):
        # another process may have stored it while this one waited
        if path.exists() and not force:
            return StoredPart(path, part_of(plan, path))
        return _run(plan, cut, shard, root, force=force, progress=progress)


def part_of(plan: Plan, path: Path) -> Part:
    """The part in a file, which must be one of a plan.

    Raises:
        ResultError: it is missing, damaged or changed, has the name of another shard, or is of another evaluation.
    """
    part = parts.read(path)
    refuse_stranger(plan, part, path)
    return part


def refuse_stranger(plan: Plan, part: Part, path: Path) -> None:
    """Refuse a part that is not one of a plan.

    Raises:
        ResultError: it is of another evaluation.
    """
    record = part.record
    if record.result.evaluation_id != plan.evaluation_id or record.total != len(plan.target.x):
        raise ResultError(
            f"the part {path} is of another evaluation ({record.result.label}, {record.result.suite}, "
            f"{record.total} images): remove it"
        )


def run_part(plan: Plan, shard: Shard, *, progress: Callable[[AttackProgress], None] | None = None) -> Part:
    """The part of a shard, run whatever is stored and kept by the caller.

    Args:
        plan: of the whole evaluation.

    Raises:
        InvalidInput: the evaluation cannot be cut so.
    """
    part, state = _attacked(plan, shard_plan(plan, shard), shard, progress)
    state.clear()
    return part


def _run(
    plan: Plan,
    cut: Plan,
    shard: Shard,
    root: Path,
    *,
    force: bool,
    progress: Callable[[AttackProgress], None] | None,
) -> StoredPart:
    part, state = _attacked(plan, cut, shard, progress)
    parts.save(part, root, replace=force)
    state.clear()
    path = parts.path_of(root, plan.evaluation_id, shard)
    return StoredPart(path, parts.read(path), ran=True)


def _attacked(
    plan: Plan, cut: Plan, shard: Shard, progress: Callable[[AttackProgress], None] | None
) -> tuple[Part, State]:
    done = _evaluate.run(cut, progress=progress, keep_state=True)
    record = PartRecord(
        number=shard.number,
        count=shard.count,
        total=len(plan.target.x),
        gradient_free=[
            step.name
            for step in plan.suite.steps
            if attacks.build(step.attack, plan.threat, _MANY_CLASSES, **step.parameters).gradient_free
        ],
        trials=done.trials,
        result=done.result,
    )
    broken = done.verdicts.broken_by >= 0
    return Part(record, done.verdicts, done.points[broken].numpy()), done.state
