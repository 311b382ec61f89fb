"""Shards of evaluations: running one, and joining what the shards have left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.cli._render import percent, print_line, print_table
from harness.errors import ResultError
from harness.results import joining, parts, store
from harness.util.text import counted

if TYPE_CHECKING:
    from harness.evaluation import StoredPart
    from harness.results.record import Result

__all__ = ["Collected", "collect", "collected_as_json", "part_as_json", "show_collected", "show_part"]


class Collected(NamedTuple):
    """What is there of one evaluation that was cut into shards.

    Attributes:
        first: the record of one of its parts. path, result: of the joined result; None as long as parts are missing.
    """

    first: Result
    there: list[parts.Part]
    missing: list[parts.Shard]
    path: Path | None
    result: Result | None


def collect(root: Path, *, adversarial: bool = True) -> list[Collected]:
    """Join the parts of every evaluation under the folder of the results that has all of them.

    Args:
        adversarial: keep the adversarial examples beside the results.

    Raises:
        ResultError: there are no parts; or some are damaged, changed, of another evaluation, or overlap.
    """
    folders = sorted(path for path in (root / parts.FOLDER).glob("*") if path.is_dir())
    if not folders:
        raise ResultError(f"there are no parts under {root / parts.FOLDER}: run 'harness evaluate' with --shard")
    return [_collected(joining.survey(folder), root, adversarial) for folder in folders]


def _collected(found: joining.Survey, root: Path, adversarial: bool) -> Collected:
    there = list(found.parts.values())
    if found.missing:
        return Collected(found.first, there, found.missing, None, None)
    path = joining.keep(found.parts, root, adversarial=adversarial)
    return Collected(found.first, there, [], path, store.read(path))


def show_part(stored: StoredPart) -> None:
    """One shard for people, on stdout."""
    record = stored.part.record
    result = record.result
    print_line(
        f"{result.label}: shard {record.shard}, {result.n:,} of {counted(record.total, 'image')}, {result.suite}, "
        f"{result.threat.norm} {result.threat.eps}: clean {percent(result.clean_acc)}, "
        f"robust {percent(result.robust_acc)}"
    )
    print_line(f"part {stored.path}{'' if stored.ran else '  (found, not run again; --force runs it)'}")


def part_as_json(stored: StoredPart) -> dict[str, Any]:
    """What ``harness evaluate --shard --json`` prints of one shard."""
    record = stored.part.record
    return {
        "checkpoint": record.result.checkpoint,
        "shard": str(record.shard),
        "n": record.result.n,
        "total": record.total,
        "clean_acc": record.result.clean_acc,
        "robust_acc": record.result.robust_acc,
        "part": str(stored.path.resolve()),
        "evaluation_id": record.result.evaluation_id,
        "ran": stored.ran,
        "seconds": record.result.seconds,
    }


def show_collected(collected: list[Collected]) -> None:
    """How far evaluations are, for people, on stdout."""
    header = ("checkpoint", "suite", "threat", "parts", "samples", "clean", "robust so far", "missing")
    rows = []
    for one in collected:
        done = sum(part.record.result.n for part in one.there)
        clean, robust = (
            sum(getattr(part.record.result, name) * part.record.result.n for part in one.there) / done
            for name in ("clean_acc", "robust_acc")
        )
        threat = f"{one.first.threat.norm} {one.first.threat.eps}"
        of, total = len(one.there) + len(one.missing), one.there[0].record.total
        missing = ", ".join(map(str, one.missing[:8])) + (", ..." if len(one.missing) > 8 else "")
        counts = (f"{len(one.there)} of {of}", f"{done:,} of {total:,}")
        rows.append((one.first.label, one.first.suite, threat, *counts, percent(clean), percent(robust), missing))
    print_table(header, rows)
    for one in collected:
        if one.path is not None:
            print_line(f"result {one.path}")


def collected_as_json(one: Collected) -> dict[str, Any]:
    """What ``harness collect --json`` prints of one evaluation."""
    return {
        "checkpoint": one.first.checkpoint,
        "suite": one.first.suite,
        "evaluation_id": one.first.evaluation_id,
        "parts": [str(part.record.shard) for part in one.there],
        "missing": [str(shard) for shard in one.missing],
        "n": one.there[0].record.total,
        "result": None if one.path is None else str(one.path.resolve()),
        "clean_acc": None if one.result is None else one.result.clean_acc,
        "robust_acc": None if one.result is None else one.result.robust_acc,
    }
