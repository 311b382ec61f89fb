"""Running a study: what is missing is trained and evaluated, everything else is left alone."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from harness import attacks, suites
from harness.engine.executors import count as count_workers
from harness.engine.executors import positive
from harness.errors import UnknownName
from harness.studies import run_log
from harness.studies.jobs import Folders, evaluate_one, find_result, load, train_one
from harness.studies.measurements import is_trained
from harness.studies.planning import Measure, Member, Plan
from harness.studies.scheduling import Event, Job, JobProgress, JobResult, can_isolate, schedule
from harness.suites import REFERENCE
from harness.util.devices import find_device
from harness.util.files import check_writable
from harness.util.torch_state import threads

__all__ = ["Summary", "missing", "run"]


@dataclass(frozen=True)
class Summary:
    """How a run ended.

    Attributes:
        jobs: by name. trained, evaluated: how many were done now.
        seconds: from start to end.
    """

    jobs: dict[str, JobResult]
    trained: int
    evaluated: int
    seconds: float

    @property
    def failures(self) -> dict[str, str]:
        """What failed by itself, and why."""
        return {name: result.error for name, result in self.jobs.items() if result.status == "failed"}

    def with_jobs(self, evaluations: dict[str, JobResult]) -> Summary:
        """This run, and evaluations that were made after it."""
        done = sum(result.status == "done" for result in evaluations.values())
        return replace(self, jobs=self.jobs | evaluations, evaluated=self.evaluated + done)


def run(
    plan: Plan,
    *,
    output: Path,
    progress: JobProgress,
    workers: int | str = "auto",
    device: str | None = None,
    only: Iterable[str] = (),
    command: str | None = None,
    evaluate: bool = True,
) -> Summary:
    """Train and evaluate what is missing. A study that was killed continues where it was.

    Args:
        output: checkpoints, results and states lie here.
        progress: told what happens to the jobs.
        workers: jobs at once, each a process with one thread; "auto" is one a core, or one in all on a GPU.
        device: a GPU where there is one, if not given.
        only: labels to be evaluated; what they start from is trained too.
        command: for the records of what was made.
        evaluate: whether what is trained is evaluated as well.

    Raises:
        UnknownName: a label that the study lacks.
        InvalidInput: workers or a device that are not there.
        StorageError: the folder cannot be written.
    """
    place = find_device(device)
    size = _count(workers, place)
    folders = Folders(output)
    check_writable(output)
    began = time.perf_counter()
    ended: dict[str, JobResult] = {}

    def note(*, over: bool = False) -> None:
        done = [job for job in ended.values() if job.status == "done"]
        spent = sum(job.cpu_seconds for job in ended.values())
        run_log.note(output, jobs=len(done), seconds=time.perf_counter() - began, cpu_seconds=spent, ended=over)

    def heard(event: Event) -> None:
        if event.result is not None:
            ended[event.job.name] = event.result
            note()
        progress(event)

    with threads(1 if place.type == "cpu" else None):
        jobs = missing(plan, folders, only=tuple(only), device=str(place), command=command, evaluate=evaluate)
        if jobs:
            run_log.begin(output, command=command, device=str(place), workers=size)
            try:
                # one job at a time has the GPU's driver started once, and what is compiled kept
                isolated = (place.type == "cpu" or size > 1) and can_isolate(place)
                schedule(jobs, workers=size, isolated=isolated, progress=heard)
            finally:
                note(over=True)
    folders.clear_states()
    kinds = {job.name: job.name.partition(" ")[0] for job in jobs if ended[job.name].status == "done"}
    trained = sum(kind == "train" for kind in kinds.values())
    return Summary(ended, trained, len(kinds) - trained, time.perf_counter() - began)


def missing(
    plan: Plan,
    folders: Folders,
    *,
    only: tuple[str, ...] = (),
    device: str = "cpu",
    command: str | None = None,
    evaluate: bool = True,
) -> list[Job]:
    """The jobs that are to be done, trainings first and parents before all.

    Raises:
        UnknownName: a label of ``only`` that the study lacks.
    """
    labels = [member.label for member in plan.members]
    for label in only:
        if label not in labels:
            raise UnknownName("entry of the study", label, labels)
    wanted = {label for label in labels if not only or label in only}
    needed = _with_parents(plan, wanted)
    trainings, evaluations = [], []
    for label in plan.order:
        member = plan.member(label)
        for seed in plan.seeds_of(member) if label in needed else ():
            known = is_trained(plan, member, seed, folders)
            if not known:
                trainings.append(_training(plan, member, seed, folders, device, command))
            if label in wanted and evaluate:
                evaluations += _evaluations(plan, member, seed, folders, device, known=known)
    # parents at the head, so that what waits for them can begin; then the longest evaluations
    parents = {member.parent for member in plan.members}
    trainings.sort(key=lambda job: job.name.split()[1] not in parents)
    evaluations.sort(key=lambda job: job[0])
    return [*trainings, *(job for _, job in evaluations)]


def _training(plan: Plan, member: Member, seed: int, folders: Folders, device: str, command: str | None) -> Job:
    name = f"train {member.label} seed {seed}"
    needs = (f"train {member.parent} seed {seed}",) if member.parent else ()
    crafts = member.regime is not None and member.regime.crafts
    run_one = partial(train_one, plan, member, seed, folders, device=device, command=command)
    cost = 0.0
    if member.settings is not None and plan.train_set is not None:
        passes = 2 + (member.settings.steps if crafts else 0)
        cost = float(member.settings.epochs * passes * len(plan.train_set))
    return Job(name, f"train {'with' if crafts else 'without'} attacks", needs, run_one, cost)


def _evaluations(
    plan: Plan, member: Member, seed: int, folders: Folders, device: str, *, known: bool
) -> list[tuple[int, Job]]:
    """With a rank: suites are named from the cheapest to the dearest, and the dearest should not come last."""
    ranks = {suite: -rank for rank, suite in enumerate(plan.study.suites)}
    jobs = []
    point = load(plan, member, seed, folders) if known else None
    for measure in plan.measures_of(member):
        if point is not None and find_result(plan, point, measure, folders) is not None:
            continue
        name = measure.job_of(member.label, seed)
        needs = (f"train {member.label} seed {seed}",)
        run_one = partial(evaluate_one, plan, member, seed, measure, folders, device=device)
        job = Job(name, f"evaluate {measure.suite}", needs, run_one, _cost(plan, measure))
        jobs.append((ranks.get(measure.asked, 1), job))
    return jobs


def _cost(plan: Plan, measure: Measure) -> float:
    """Passes of an evaluation in which every image survives."""
    steps = suites.get(measure.asked, measure.threat).steps
    classes = len(plan.test_set.classes)
    built = [attacks.build(s.attack, measure.threat, classes, **s.parameters) for s in steps if s.attack != REFERENCE]
    return float(len(plan.test_set) * (1 + sum(attack.runs * attack.steps for attack in built)))


def _with_parents(plan: Plan, wanted: set[str]) -> set[str]:
    needed = set(wanted)
    for label in reversed(plan.order):
        parent = plan.member(label).parent
        if label in needed and parent is not None:
            needed.add(parent)
    return needed


def _count(wanted: int | str, device: torch.device) -> int:
    if device.type == "cpu" or wanted == "auto":
        return count_workers(wanted, device)
    return positive(wanted)
