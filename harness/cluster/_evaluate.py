"""Evaluations on an executor: what is missing is run as shards, and what is complete is joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness import evaluation
from harness.cluster._base import Executor
from harness.cluster._queue import Queue, Task
from harness.engine.types import AttackProgress
from harness.errors import HarnessError, ResultError
from harness.evaluation import Plan, Stored
from harness.results import joining, parts, store
from harness.results.parts import Part, Shard

__all__ = ["HandedOver", "evaluate"]

_SHARDS_PER_SLOT = 4
"""So that those who are done early take over from those who are late."""

_FEW = 16
"""Shards of fewer samples cost more than they share out, unless a slot would have nothing to do."""


@dataclass(frozen=True)
class HandedOver:
    """An evaluation that goes on somewhere else; ``harness collect`` joins it.

    Attributes:
        there, missing: its shards. where: in words, who runs them. jobs: the numbers under which they are known there.
    """

    plan: Plan
    there: int
    missing: list[Shard]
    where: str
    jobs: tuple[int, ...]


def evaluate(
    plans: Sequence[Plan],
    executor: Executor,
    root: Path,
    *,
    shards: int | None = None,
    adversarial: bool = True,
    force: bool = False,
    progress: Callable[[AttackProgress], None] | None = None,
) -> list[Stored | HandedOver | HarnessError]:
    """Run evaluations on an executor, all as one queue; what is stored is found, and parts that are there are used.

    Args:
        shards: to cut each evaluation into; as the parts that are there if not given, or else as suits the executor.
        adversarial: store the adversarial examples beside the results.
        force: run everything again.

    Returns:
        For each plan its result, or that it goes on elsewhere, or why it failed, which stops no other. Results are
        stored as soon as their last part is done.

    Raises:
        HarnessError: the executor cannot run anything any more.
    """
    outcomes: dict[Plan, Stored | HandedOver | HarnessError] = {}
    cuts: dict[Plan, _Cut] = {}
    for plan in dict.fromkeys(plans):
        try:
            known = None if force else evaluation.find(plan, root)
            if known is None:
                cuts[plan] = _cut(plan, root, shards, executor, force=force)
            else:
                outcomes[plan] = evaluation.recorded(plan, known, root)
        except HarnessError as error:
            outcomes[plan] = error

    def join(plan: Plan) -> None:
        ran = bool(cuts[plan].missing)
        try:
            outcomes[plan] = _joined(plan, root, adversarial=adversarial, force=force, ran=ran)
        except HarnessError as error:
            outcomes[plan] = error

    tasks = [Task(plan, shard) for plan, cut in cuts.items() for shard in cut.missing]
    finished = [part for cut in cuts.values() for part in cut.there.values()]
    queue = Queue(tasks, root, finished=finished, progress=progress, complete=join)
    for plan in [plan for plan, cut in cuts.items() if not cut.missing]:
        join(plan)
    if tasks:
        for cut in cuts.values() if force else ():
            cut.clear(root)
        executor.run(queue)
    for plan in [plan for plan in cuts if plan not in outcomes]:
        now = _now(plan, queue, cuts[plan])
        if now is None:
            join(plan)
        else:
            outcomes[plan] = now
    return [outcomes[plan] for plan in plans]


@dataclass(frozen=True, eq=False)
class _Cut:
    """An evaluation that is cut into ``count`` shards, and the parts of it that are there by the name of their file."""

    plan: Plan
    count: int
    there: dict[str, Part]

    @property
    def missing(self) -> list[Shard]:
        there = {part.record.shard for part in self.there.values()}
        return [shard for number in range(1, self.count + 1) if (shard := Shard(number, self.count)) not in there]

    def clear(self, root: Path) -> None:
        """Remove the parts of earlier runs."""
        for path in parts.folder_of(root, self.plan.evaluation_id).glob("*.safetensors"):
            path.unlink(missing_ok=True)


def _cut(plan: Plan, root: Path, shards: int | None, executor: Executor, *, force: bool) -> _Cut:
    there = {} if force else _parts(plan, root)
    counts = sorted({part.record.count for part in there.values()})
    if len(counts) > 1:
        raise ResultError(
            f"{plan.target.name} was cut into {counts[0]} and into {counts[-1]} shards, and parts of two cuts overlap: "
            f"leave those of one in {parts.folder_of(root, plan.evaluation_id)}"
        )
    if shards and counts not in ([], [shards]):
        raise ResultError(
            f"{plan.target.name} was cut into {counts[0]} shards before, and parts of two cuts overlap: take "
            f"{counts[0]} shards, or another folder"
        )
    count = shards or (counts[0] if counts else _suitable(len(plan.target.x), executor.slots))
    evaluation.shard_plan(plan, Shard(1, count))  # refuses what cannot be cut so
    return _Cut(plan, count, there)


def _parts(plan: Plan, root: Path) -> dict[str, Part]:
    folder = parts.folder_of(root, plan.evaluation_id)
    there = joining.survey(folder).parts if any(folder.glob("*.safetensors")) else {}
    for name, part in there.items():
        evaluation.refuse_stranger(plan, part, folder / name)
    return there


def _now(plan: Plan, queue: Queue, before: _Cut) -> HandedOver | HarnessError | None:
    """How an evaluation stands that was not joined when the executor was through; None if all its parts are there."""
    if plan in queue.failures:
        return queue.failures[plan]
    try:
        cut = replace(before, there=_parts(plan, queue.root))
    except HarnessError as error:
        return error
    if not cut.missing:
        return None
    if queue.is_unfinished(plan):
        return HandedOver(plan, len(cut.there), cut.missing, queue.where, queue.jobs)
    gone = ", ".join(map(str, cut.missing))
    return ResultError(f"the parts of shards {gone} are not there any more: give the same command again")


def _joined(plan: Plan, root: Path, *, adversarial: bool, force: bool, ran: bool) -> Stored:
    path = joining.keep(_parts(plan, root), root, adversarial=adversarial, force=force)
    # recorded anew where the parts were made under another name
    return replace(evaluation.recorded(plan, Stored(path, store.read(path)), root), ran=ran)


def _suitable(n: int, slots: int) -> int:
    return max(1, min(n, slots), min(_SHARDS_PER_SLOT * slots, n // _FEW))
