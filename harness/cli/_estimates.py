"""Estimating evaluations by name, and showing the estimates."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from harness.cli import _evaluation
from harness.cli._render import percent, print_line
from harness.cli._times import seconds_of
from harness.util.files import check_writable

if TYPE_CHECKING:
    from harness.cli._evaluation import Request
    from harness.evaluation import StoredEstimate

__all__ = ["as_json", "estimate_all", "show"]


def estimate_all(
    asked: Sequence[tuple[str, Request]], half_width: float | None, budget: str | None
) -> list[StoredEstimate]:
    """Estimate one evaluation after the other; each is stored before the next begins.

    Args:
        asked: checkpoints, each with its request.
        half_width: in points. budget: of each, a time as `seconds_of` reads it.
    """
    from harness import evaluation
    from harness.evaluation.display import displayed

    target = evaluation.Target(
        half_width=None if half_width is None else half_width / 100,
        seconds=None if budget is None else seconds_of(budget),
    )
    check_writable(asked[0][1].root)
    planner = _evaluation.Planner()
    found = []
    with redirect_stdout(sys.stderr):
        plans = [(planner.plan(name, request), request) for name, request in asked]
        for plan, _ in plans:
            evaluation.place(plan)
        for plan, request in plans:
            with displayed(plan.target.name, f"estimate of {plan.suite.name}") as report:
                found.append(evaluation.estimate(plan, target, request.root, progress=report))
            _evaluation.remove_empty(plan.settings.state_dir)
    return found


def as_json(stored: StoredEstimate) -> dict[str, Any]:
    """What ``harness evaluate --estimate --json`` prints of one estimate."""
    from harness.results.heading import heading

    record = stored.record
    shown = ("clean_acc", "robust_acc", "low", "high", "confidence", "opening_acc")
    counts = ("survivors", "attacked", "broken", "forward", "backward", "seconds", "evaluation_id")
    return {
        "kind": record.kind,
        **heading(record),
        **{name: getattr(record, name) for name in (*shown, *counts)},
        "complete": record.complete,
        "estimate": str(stored.path.resolve()),
        "ran": stored.ran,
    }


def show(stored: StoredEstimate) -> None:
    """One estimate for people, on stdout."""
    record = stored.record
    print_line(
        f"{record.checkpoint}: estimate of {record.suite} on {record.n:,} {record.dataset.name} {record.dataset.split} "
        f"images, {record.threat.norm} {record.threat.eps}"
    )
    print_line(f"clean    {percent(record.clean_acc)}")
    print_line(f"opening  {percent(record.opening_acc)}  (all images, the first runs of the suite)")
    what = "all survivors attacked" if record.complete else f"{100 * record.confidence:g} % interval"
    interval = f"{100 * record.low:.2f} to {100 * record.high:.2f} %"
    print_line(
        f"robust   {percent(record.robust_acc)}  ({what}: {interval}; {record.attacked:,} of {record.survivors:,} "
        f"survivors attacked, {record.broken} broken)"
    )
    for flag in record.flags:
        print_line(flag.line)
    print_line(f"estimate {stored.path}{'' if stored.ran else '  (found, narrow enough)'}")
    print_line()
