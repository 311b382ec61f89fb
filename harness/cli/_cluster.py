"""Evaluations by name on an executor: its options, and what is run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import rich_click as click

from harness.cli._options import spelled
from harness.cli._render import print_line
from harness.cli._times import seconds_of
from harness.cli._written import written

if TYPE_CHECKING:
    from harness.cli._evaluation import Request
    from harness.cli._jobs import Failure, Job
    from harness.cluster import Commands, Executor, HandedOver
    from harness.errors import HarnessError
    from harness.evaluation import Plan, Stored

__all__ = ["OPTIONS", "Wanted", "as_json", "evaluate_each", "executor", "options", "show_handed_over"]

OPTIONS = ["--devices", "--executor", "--shards", "--timeout", "--ray-address", "--partition", "--time"]
"""How `--help` calls them."""

_LISTENS_TO = {
    "devices": {"devices", "shards", "timeout"},
    "ray": {"shards", "timeout", "ray_address"},
    "slurm": {"shards", "partition", "time"},
}
"""Which of these options the executors of this package take; others may take any."""

_NOT_OF_A_SHARD = {*OPTIONS, "--workers", "--json", "--strict", "--force", "--adversarial", "--no-adversarial"}
"""Options that the command of a shard leaves out. Without --force, as old parts are removed before, a shard that is run
again finds what it has stored."""

_NAMES = [name.lstrip("-").replace("-", "_") for name in OPTIONS]


class Wanted(NamedTuple):
    """Where evaluations are to run.

    Attributes:
        name: of the executor; None is in this process.
        given: the options, by name.
    """

    name: str | None
    given: dict[str, Any]


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of executors; they arrive as ``executor``, a `Wanted`."""

    @click.option(
        "--devices",
        metavar="NAMES",
        help="One process for each of these devices of this machine, which share the images: all GPUs, 0,1 or cpu,cpu.",
    )
    @click.option(
        "--executor",
        metavar="NAME",
        help="Where to run: devices (of this machine), ray (a cluster; an extra of this package), slurm (a cluster; "
        "submits and does not wait), or FILE.py:NAME.",
    )
    @click.option(
        "--shards",
        type=click.IntRange(min=1),
        metavar="N",
        help="Cut every evaluation into N shards for --devices or --executor; as suits them if not given.",
    )
    @click.option(
        "--timeout",
        metavar="TIME",
        help="A process or task of devices or ray that says nothing for so long is ended, and its shard run elsewhere; "
        "10m if not given.",
    )
    @click.option(
        "--ray-address", metavar="ADDRESS", help="Of a running Ray cluster, or auto; one is started if not given."
    )
    @click.option("--partition", metavar="NAME", help="Of a Slurm cluster, to submit to.")
    @click.option(
        "--time",
        metavar="TIME|auto",
        help="That a shard may take on a Slurm cluster, such as 2h, before it is queued again and goes on; auto, "
        "which forecasts it, if not given.",
    )
    @wraps(command)
    def wrapped(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in _NAMES}
        told = {option for option, value in chosen.items() if value is not None and option != "executor"}
        name = chosen["executor"] if chosen["executor"] is not None else "devices" if "devices" in told else None
        if name is None and told:
            raise click.UsageError(f"{_spelt(told)} goes with --devices or --executor")
        strange = told - _LISTENS_TO.get(str(name), told)
        if strange:
            raise click.UsageError(f"{_spelt(strange)} does not go with --executor {name}")
        command(executor=Wanted(name, chosen), **given)

    return wrapped


def _spelt(options: set[str]) -> str:
    return ", ".join(map(spelled, sorted(options)))


def evaluate_each(wanted: Sequence[Job], where: Wanted, elsewhere: list[HandedOver]) -> Iterator[Stored | Failure]:
    """Run all jobs as one queue on an executor.

    Args:
        elsewhere: gets those that go on when this ends.

    Raises:
        HarnessError: what stands in the way of all of them; a single job fails with its own error.
    """
    from harness import cluster
    from harness.cli import _jobs
    from harness.cli._evaluation import remove_empty
    from harness.errors import HarnessError
    from harness.evaluation import Stored
    from harness.evaluation.display import displayed
    from harness.util.files import check_writable

    request = wanted[0].request
    check_writable(request.root)
    with redirect_stdout(sys.stderr):  # libraries that print must not write into our output
        made = executor(where, request.device, _commands(request))
        planned = _planned(wanted)
        plans = {job: plan for job, plan in planned.items() if not isinstance(plan, HarnessError)}
        first = next(iter(plans.values()))
        label = f"{first.target.name}, {first.suite.name}" if len(plans) == 1 else f"{len(plans)} evaluations"
        with displayed(label, str(where.name)) as report, _begun_anew(request):
            outcomes = cluster.evaluate(
                list(plans.values()),
                made,
                request.root,
                shards=where.given["shards"],
                adversarial=request.adversarial,
                force=request.force,
                progress=report,
            )
        remove_empty(first.settings.state_dir)
    failed = {job: error for job, error in planned.items() if isinstance(error, HarnessError)}
    done = failed | dict(zip(plans, outcomes, strict=True))
    for job in wanted:
        outcome = done[job]
        if isinstance(outcome, cluster.HandedOver):
            elsewhere.append(outcome)
        elif isinstance(outcome, Stored):
            yield outcome
        elif len(wanted) == 1:
            raise outcome
        else:
            print_line(f"error: {job} failed: {outcome}", err=True)
            yield _jobs.Failure(job, str(outcome))


def _planned(wanted: Sequence[Job]) -> dict[Job, Plan | HarnessError]:
    """The plan of each job, or why it has none.

    Raises:
        HarnessError: a checkpoint that there is not, or a suite or radius that no checkpoint can be evaluated with.
    """
    from harness import checkpoints
    from harness.cli._evaluation import Planner
    from harness.errors import HarnessError

    for job in wanted:
        checkpoints.find(job.checkpoint, job.request.checkpoint_dir)
    planner = Planner()
    planned: dict[Job, Plan | HarnessError] = {}
    for job in wanted:
        try:
            planned[job] = planner.plan(job.checkpoint, job.request)
        except HarnessError as error:
            planned[job] = error
    possible = {job.request for job, plan in planned.items() if not isinstance(plan, HarnessError)}
    for job, plan in planned.items():
        if isinstance(plan, HarnessError) and job.request not in possible:
            raise plan  # it is the request that is wrong, and no checkpoint
    return planned


@contextmanager
def _begun_anew(request: Request) -> Iterator[None]:
    """An interrupt within it says so where the same command would remove the parts that are there."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if request.force:
            interrupt.add_note("with --force the same command begins anew")
        raise


def executor(where: Wanted, device: str | None, commands: Commands | None = None) -> Executor:
    """The executor that the options name.

    Args:
        device: that was asked for. commands: the work as command lines, where it can be said so.
    """
    from harness import cluster
    from harness.errors import InvalidInput

    given = where.given
    told = {name: given[name] for name in ("devices", "ray_address", "partition") if given[name] is not None}
    if given["timeout"] is not None:
        told["timeout"] = seconds_of(given["timeout"])
        if not told["timeout"]:
            raise InvalidInput("--timeout must be longer than nothing: every process would count as lost")
    made = cluster.Options(
        device=device,
        task_seconds=None if given["time"] in (None, "auto") else seconds_of(given["time"]),
        commands=commands,
        **told,
    )
    return cluster.executor(str(where.name), made)


def _commands(request: Request) -> Commands:
    from harness.cluster import Commands

    # -P, because a folder in which somebody works may have one that is called harness
    program = (sys.executable, "-P", "-m", "harness")
    without = () if request.adversarial else ("--no-adversarial",)
    return Commands(
        shard=(*program, "evaluate", *written(_NOT_OF_A_SHARD)),
        collect=(*program, "collect", str(request.root.absolute()), *without),
    )


def as_json(one: HandedOver) -> dict[str, Any]:
    """What ``--json`` prints of an evaluation that goes on elsewhere."""
    return {
        "checkpoint": one.plan.target.name,
        "suite": one.plan.suite.name,
        "evaluation_id": one.plan.evaluation_id,
        "there": one.there,
        "missing": [str(shard) for shard in one.missing],
        "where": one.where,
        "jobs": list(one.jobs),
    }


def show_handed_over(unfinished: Sequence[HandedOver], root: Path) -> None:
    """Evaluations that go on elsewhere, for people, on stdout."""
    for one in unfinished:
        total = one.there + len(one.missing)
        print_line(f"{one.plan.target.name}: {one.plan.suite.name}, {one.there} of {total} shards done")
    for where in dict.fromkeys(one.where for one in unfinished):
        print_line(f"the others go on {where}")
    print_line(f"harness collect {root} says at any time how far they are")
