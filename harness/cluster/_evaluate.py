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
from harness.results import joining, parts
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
        For each plan its result, or that it goes on elsewhere, or why it failed.

    Raises:
        HarnessError: the executor cannot run anything any more; a plan that cannot be cut; parts that are damaged or of
            another evaluation.
    """
    known = {plan: None if force else evaluation.find(plan, root) for plan in plans}
    cuts = {plan: _cut(plan, root, shards, executor, force=force) for plan in plans if known[plan] is None}
    tasks = [Task(plan, shard) for plan, cut in cuts.items() for shard in cut.missing]
    for task in tasks:
        evaluation.shard_plan(task.plan, task.shard)
    finished = [part for cut in cuts.values() for part in cut.there.values()]
    queue = Queue(tasks, root, finished=finished, progress=progress)
    if tasks:
        executor.run(queue)
    outcomes: list[Stored | HandedOver | HarnessError] = []
    for plan in plans:
        try:
            if plan in queue.failures:
                raise queue.failures[plan]
            cut = None if plan not in cuts else cuts[plan].now(root)
            if cut is not None and cut.missing:
                outcomes.append(HandedOver(plan, len(cut.there), cut.missing, queue.where, queue.jobs))
                continue
            if cut is not None:
                joining.keep(cut.there, root, adversarial=adversarial, force=force)
            # found now, and recorded anew where the parts were made under another name
            outcomes.append(replace(evaluation.obtain(plan, root, adversarial=adversarial), ran=cut is not None))
        except HarnessError as error:
            outcomes.append(error)
    return outcomes


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

    def now(self, root: Path) -> _Cut:
        return _Cut(self.plan, self.count, _parts(self.plan, root))


def _cut(plan: Plan, root: Path, shards: int | None, executor: Executor, *, force: bool) -> _Cut:
    if force:
        for path in parts.folder_of(root, plan.evaluation_id).glob("*.safetensors"):
            path.unlink(missing_ok=True)
    there = _parts(plan, root)
    count = next((part.record.count for part in there.values()), 0)
    if shards and count not in (0, shards):
        raise ResultError(
            f"{plan.target.name} was cut into {count} shards before, and parts of two cuts overlap: take {count} "
            "shards, or another folder"
        )
    count = shards or count
    return _Cut(plan, count or _suitable(len(plan.target.x), executor.slots), there)


def _parts(plan: Plan, root: Path) -> dict[str, Part]:
    folder = parts.folder_of(root, plan.evaluation_id)
    return joining.survey(folder).parts if any(folder.glob("*.safetensors")) else {}


def _suitable(n: int, slots: int) -> int:
    return max(1, min(n, slots), min(_SHARDS_PER_SLOT * slots, n // _FEW))
