"""The evaluations of a study in many places, as one queue."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from harness import cluster
from harness.cluster import Executor, HandedOver
from harness.engine.types import AttackProgress
from harness.errors import HarnessError
from harness.studies.jobs import Folders, find_result, load, plan_one
from harness.studies.measurements import is_trained
from harness.studies.planning import Plan
from harness.studies.scheduling import JobResult

__all__ = ["evaluate_elsewhere"]


def evaluate_elsewhere(
    plan: Plan,
    executor: Executor,
    *,
    output: Path,
    only: Iterable[str] = (),
    shards: int | None = None,
    progress: Callable[[AttackProgress], None] | None = None,
) -> dict[str, JobResult]:
    """Evaluate all networks of a study that are trained, in the ways that are missing, on an executor.

    Args:
        output: checkpoints and results lie here.
        only: labels to be evaluated; all if none is given.
        shards: to cut each evaluation into, as in `harness.cluster.evaluate`.
        progress: hears how far all evaluations together are.

    Returns:
        What became of each, by the name of its job. One that goes on elsewhere counts as skipped.

    Raises:
        HarnessError: as `harness.cluster.evaluate`.
    """
    folders, labels = Folders(output), set(only)
    wanted = {}
    for member in plan.members:
        for seed in plan.seeds_of(member) if member.label in labels or not labels else ():
            if not is_trained(plan, member, seed, folders):
                continue
            point = load(plan, member, seed, folders)
            for measure in plan.measures_of(member):
                if find_result(plan, point, measure, folders) is None:
                    name = measure.job_of(member.label, seed)
                    wanted[name] = plan_one(plan, point, measure, folders, state_dir=folders.evaluation)
    outcomes = cluster.evaluate(list(wanted.values()), executor, folders.results, shards=shards, progress=progress)
    folders.clear_states()
    return {name: _result(outcome) for name, outcome in zip(wanted, outcomes, strict=True)}


def _result(outcome: object) -> JobResult:
    if isinstance(outcome, HarnessError):
        return JobResult("failed", error=str(outcome))
    if isinstance(outcome, HandedOver):
        return JobResult("skipped", error=f"{len(outcome.missing)} of its shards go on elsewhere")
    return JobResult("done")
