"""Evaluations by name on an executor: its options, and what is run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import rich_click as click

from harness.cli._render import print_line
from harness.cli._times import seconds_of

if TYPE_CHECKING:
    from harness.cli._jobs import Failure, Job
    from harness.cluster import Executor, HandedOver
    from harness.evaluation import Stored

__all__ = ["OPTIONS", "Wanted", "as_json", "evaluate_each", "options", "show_handed_over"]

OPTIONS = ["--devices", "--executor", "--shards", "--timeout", "--ray-address"]
"""How `--help` calls them."""

_NAMES = [name.lstrip("-").replace("-", "_") for name in OPTIONS]


class Wanted(NamedTuple):
    """Where evaluations are to run.

    Attributes:
        executor: its name; None is in this process.
        given: the options, by name.
    """

    executor: str | None
    given: dict[str, Any]


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of executors; they arrive as ``where``, a `Wanted`."""

    @click.option(
        "--devices",
        metavar="NAMES",
        help="One process for each of these devices of this machine, which share the images: all GPUs, 0,1 or cpu,cpu.",
    )
    @click.option(
        "--executor",
        metavar="NAME",
        help="Where to run: devices (of this machine), ray (a cluster; an extra of this package), or FILE.py:NAME.",
    )
    @click.option(
        "--shards",
        type=click.IntRange(min=1),
        metavar="N",
        help="Cut every evaluation into N shards for --devices or --executor; as suits them if not given.",
    )
    @click.option(
        "--timeout",
        default="10m",
        show_default=True,
        metavar="TIME",
        help="A process or task of theirs that says nothing for so long is ended, and its shard run elsewhere.",
    )
    @click.option(
        "--ray-address", metavar="ADDRESS", help="Of a running Ray cluster, or auto; one is started if not given."
    )
    @wraps(command)
    def wrapped(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in _NAMES}
        name = chosen["executor"] or ("devices" if chosen["devices"] is not None else None)
        if name is None and (chosen["shards"] or chosen["ray_address"]):
            raise click.UsageError("--shards and --ray-address go with --devices or --executor")
        command(where=Wanted(name, chosen), **given)

    return wrapped


def evaluate_each(wanted: Sequence[Job], where: Wanted, elsewhere: list[HandedOver]) -> Iterator[Stored | Failure]:
    """Run all jobs as one queue on an executor.

    Args:
        elsewhere: gets those that go on when this ends.

    Raises:
        HarnessError: what stands in the way of all of them; a single job fails with its own error.
    """
    from harness import cluster
    from harness.cli import _jobs
    from harness.cli._evaluation import Planner, remove_empty
    from harness.errors import HarnessError
    from harness.evaluation.display import displayed
    from harness.util.files import check_writable

    request = wanted[0].request
    check_writable(request.root)
    planner = Planner()
    with redirect_stdout(sys.stderr):  # libraries that print must not write into our output
        executor = _made(where, request.device)
        plans = [planner.plan(job.checkpoint, job.request) for job in wanted]
        first = f"{plans[0].target.name}, {plans[0].suite.name}" if len(plans) == 1 else f"{len(plans)} evaluations"
        with displayed(first, str(where.executor)) as report:
            done = cluster.evaluate(
                plans,
                executor,
                request.root,
                shards=where.given["shards"],
                adversarial=request.adversarial,
                force=request.force,
                progress=report,
            )
        remove_empty(plans[0].settings.state_dir)
    for job, outcome in zip(wanted, done, strict=True):
        if isinstance(outcome, cluster.HandedOver):
            elsewhere.append(outcome)
        elif not isinstance(outcome, HarnessError):
            yield outcome
        elif len(wanted) == 1:
            raise outcome
        else:
            print_line(f"error: {job} failed: {outcome}", err=True)
            yield _jobs.Failure(job, str(outcome))


def _made(where: Wanted, device: str | None) -> Executor:
    """The executor that the options name."""
    from harness import cluster

    given = where.given
    told = {name: given[name] for name in ("devices", "ray_address") if given[name] is not None}
    made = cluster.Options(device=device, timeout=seconds_of(given["timeout"]), **told)
    return cluster.executor(str(where.executor), made)


def as_json(one: HandedOver) -> dict[str, Any]:
    """What ``--json`` prints of an evaluation that goes on elsewhere."""
    return {
        "checkpoint": one.plan.target.name,
        "suite": one.plan.suite.name,
        "evaluation_id": one.plan.evaluation_id,
        "there": one.there,
        "missing": [str(shard) for shard in one.missing],
    }


def show_handed_over(one: HandedOver, root: Path) -> None:
    """An evaluation that goes on elsewhere, for people, on stdout."""
    plan, total = one.plan, one.there + len(one.missing)
    print_line(
        f"{plan.target.name}: {plan.suite.name}, {one.there} of {total} shards done; the others go on elsewhere: "
        f"harness collect {root}"
    )
