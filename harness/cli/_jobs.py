"""Many evaluations in one call: all are checked first, each is shown as it is done, none stops the others."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING

from harness.audit import kinds
from harness.cli._evaluation import Planner, Request, run_plan
from harness.cli._inputs import Inputs, found, inputs_of, remember
from harness.cli._render import percent, print_line, print_table
from harness.errors import HarnessError, system_error
from harness.util.files import check_writable

if TYPE_CHECKING:
    from harness.audit.flags import Flag
    from harness.evaluation import Plan, Stored

__all__ = ["Failure", "Job", "evaluate_each", "jobs", "show_summary"]

_KEPT_PARAMETERS = 250_000_000
"""Models of checked jobs stay in memory up to this many parameters in all; others are loaded again for their turn."""


@dataclass(frozen=True)
class Job:
    """One evaluation."""

    checkpoint: str
    request: Request

    def __str__(self) -> str:
        eps = f", eps {self.request.eps}" if self.request.eps is not None else ""
        return f"{self.checkpoint}, {self.request.suite}{eps}, seed {self.request.seed}"


@dataclass(frozen=True)
class Failure:
    """A job that could not be done, and why."""

    job: Job
    reason: str


def jobs(
    checkpoints: Sequence[str], request: Request, suites: Sequence[str], eps: Sequence[str], seeds: Sequence[int]
) -> list[Job]:
    """Every checkpoint under every suite, radius (the manifest's if none is given) and seed."""
    radii: Sequence[str | None] = eps or [None]
    ways = product(suites, radii, seeds)
    requests = [replace(request, suite=suite, eps=radius, seed=seed) for suite, radius, seed in ways]
    return [Job(name, one) for name in dict.fromkeys(checkpoints) for one in requests]


def evaluate_each(wanted: Sequence[Job]) -> Iterator[Stored | Failure]:
    """Check all jobs, then run those that can be run, one after the other.

    A single job fails with its own error.

    Raises:
        HarnessError: a checkpoint that there is not, a folder that cannot be written, or a suite or radius that no
            checkpoint can be evaluated with.
    """
    from harness import checkpoints

    check_writable(wanted[0].request.root)
    for job in wanted:
        checkpoints.find(job.checkpoint, job.request.checkpoint_dir)
    checked = _Checked(wanted)
    with _quiet():
        failures = checked.failures()
    runnable = [job for job in wanted if job not in failures]
    possible = {job.request for job in runnable}
    for job, reason in failures.items():
        if job.request not in possible:  # it is the request that is wrong, and no checkpoint
            raise HarnessError(reason)
    for job, reason in failures.items():
        print_line(f"error: {job} cannot be evaluated: {reason}", err=True)
        yield Failure(job, reason)
    for place, job in enumerate(runnable, 1):
        label = f"[{place}/{len(runnable)}] " if len(runnable) > 1 else ""
        with _quiet():
            later = sum(job not in checked.known for job in runnable[place:])
            outcome = _outcome(checked, job, label, later, alone=len(wanted) == 1)
        if isinstance(outcome, Failure):
            print_line(f"error: {job} failed: {outcome.reason}", err=True)
        yield outcome


@dataclass
class _Checked:
    """Jobs that are planned, and the plans that are kept."""

    jobs: Sequence[Job]
    planner: Planner = field(default_factory=Planner)
    inputs: dict[Job, Inputs | None] = field(default_factory=dict)
    known: dict[Job, Stored] = field(default_factory=dict)
    plans: dict[Job, Plan] = field(default_factory=dict)
    kept: int = 0

    def failures(self) -> dict[Job, str]:
        """Find or plan every job; what stands in the way of those that cannot be run."""
        # before anything is read for a plan, so that a file that is changed meanwhile is noticed
        self.inputs = {job: inputs_of(job.checkpoint, job.request) for job in self.jobs}
        for job in self.jobs:
            anew = job.request.force or job.request.tracker is not None  # a tracker is told of a plan
            stored = None if anew else found(self.inputs[job], job.request.root)
            if stored is not None:
                self.known[job] = stored
                _warn(job, stored.result.flags)
        failed: dict[Job, str] = {}
        for job in (job for job in self.jobs if job not in self.known):
            try:
                plan = self.planner.checked(job.checkpoint, job.request)
            except HarnessError as error:
                if len(self.jobs) == 1:
                    raise
                failed[job] = str(error)
                continue
            _warn(job, plan.flags)
            parameters = plan.target.model_record.parameters
            if len(self.jobs) == 1 or self.kept + parameters <= _KEPT_PARAMETERS:
                self.kept += parameters
                self.plans[job] = plan
        return failed

    def run(self, job: Job, label: str, later: int) -> Stored:
        """The result of a job that can be run: found, or else made."""
        if job in self.known:
            return self.known[job]
        plan = self.plans.pop(job, None) or self.planner.plan(job.checkpoint, job.request)
        stored = run_plan(plan, job.request, label, later)
        remember(self.inputs[job], job.checkpoint, job.request, stored)
        return stored


def _warn(job: Job, flags: Iterable[Flag]) -> None:
    for flag in flags:
        if flag.code in kinds.MENDABLE:
            print_line(f"warning: {job}: {flag}", err=True)


def _outcome(checked: _Checked, job: Job, label: str, later: int, *, alone: bool) -> Stored | Failure:
    try:
        return checked.run(job, label, later)
    except HarnessError as error:
        reason = str(error)
        if alone:
            raise
    except OSError as error:
        reason = system_error(error)
        if alone:
            raise
    except Exception as error:  # a defect, or somebody's model; the other models have nothing to do with it
        reason = f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"
        if alone:
            raise
    return Failure(job, reason)


@contextmanager
def _quiet() -> Iterator[None]:
    """Libraries that print must not write into our output."""
    with redirect_stdout(sys.stderr):
        yield


def show_summary(done: Sequence[Stored | Failure]) -> None:
    """All results in one table, seeds of one evaluation together, and what failed."""
    stored = [one for one in done if not isinstance(one, Failure)]
    groups: dict[tuple[str, ...], list[Stored]] = {}
    for one in stored:
        result = one.result
        key = (result.label, result.suite, f"{result.threat.norm} {result.threat.eps}", f"{result.n:,}")
        groups.setdefault(key, []).append(one)
    rows = [(*key, *_figures(members)) for key, members in groups.items()]
    print_table(("checkpoint", "suite", "threat model", "n", "clean", "robust", "seeds"), rows, right=("n",))
    for failed in done:
        if isinstance(failed, Failure):
            print_line(f"failed: {failed.job}: {failed.reason}")


def _figures(members: Sequence[Stored]) -> tuple[str, str, int]:
    results = [one.result for one in members]
    robust = [result.robust_acc for result in results] if results[0].steps else []
    return percent(results[0].clean_acc), _spread(robust), len(results)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = percent(sum(values) / len(values))
    return mean if len(values) == 1 else f"{mean} ({percent(min(values))} to {percent(max(values))})"
