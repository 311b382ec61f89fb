"""The parts of a sharded evaluation as one result.

Verdicts, adversarial examples and the passes of every step are those of an evaluation that was not cut; seconds are
summed, and so are the passes that each shard made to check the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.audit import indicators, kinds, plausible
from harness.audit.flags import Flag, unique
from harness.audit.model import claims_rejected, gradient_free_gain
from harness.errors import ResultError
from harness.results import parts, store
from harness.results.adversarial import AdversarialFacts, AdversarialPoints, pack
from harness.results.parts import Part, Shard
from harness.results.record import Environment, Result, StepRecord, Verdicts

__all__ = ["Joined", "Survey", "join", "keep", "survey"]

_SUMMED = ("before", "after", "forward", "backward", "judge", "rejected", "seconds", "model_seconds")

_COUNTED = {
    kind.code: (kind, of)
    for kind, of in (
        (kinds.ZERO_GRADIENT, "before"),
        (kinds.NAN_GRADIENT, "before"),
        (kinds.SUCCESS_UNCLAIMED, "after"),
    )
}
"""Flags of a step that count samples, and the field of its record that says of how many."""

_ANEW = {
    kind.code
    for kind in (
        kinds.CLAIMS_REJECTED,
        kinds.CLEAN_BY_CHANCE,
        kinds.GRADIENT_FREE_GAIN,
        kinds.GRADIENT_MASKING,
        kinds.LABELS_NEVER_PREDICTED,
    )
}
"""Flags that follow from counts of the whole."""


@dataclass(frozen=True, eq=False)
class Joined:
    """The whole evaluation.

    Attributes:
        points: ``[m, ...]`` the adversarial examples of those samples that a step broke, in the order of the verdicts.
    """

    result: Result
    verdicts: Verdicts
    points: np.ndarray[Any, Any]

    def packed(self) -> bytes | None:
        """The file of adversarial examples that lies beside the result; None where no sample was broken."""
        rows = np.flatnonzero(self.verdicts.broken_by >= 0).astype(np.int64)
        facts = AdversarialFacts(
            evaluation_id=self.result.evaluation_id,
            weights_sha256=self.result.model.sha256,
            data_sha256=self.result.dataset.sha256,
        )
        return pack(AdversarialPoints(facts, rows, torch.from_numpy(self.points)), None) if len(rows) else None


@dataclass(frozen=True, eq=False)
class Survey:
    """The parts of one evaluation that are there.

    Attributes:
        parts: by the name of their file. missing: the shards that are not, of those that the first part counts.
    """

    parts: dict[str, Part]
    missing: list[Shard]

    @property
    def first(self) -> Result:
        """The record of the first part."""
        return next(iter(self.parts.values())).record.result


def survey(folder: Path) -> Survey:
    """What lies in the folder of one evaluation.

    Raises:
        ResultError: a part that is damaged, changed, or of another evaluation, or no part at all.
    """
    found = {path.name: parts.read(path) for path in sorted(folder.glob("*.safetensors"))}
    if not found:
        raise ResultError(f"there are no parts in {folder}: run 'harness evaluate' with --shard")
    _refuse_strangers(found)
    first = next(iter(found.values())).record
    there = {part.record.shard for part in found.values()}
    wanted = [Shard(number, first.count) for number in range(1, first.count + 1)]
    return Survey(found, [shard for shard in wanted if shard not in there])


def join(found: Mapping[str, Part]) -> Joined:
    """Join parts, by the name of their file.

    Raises:
        ResultError: they are of different evaluations, overlap, or leave samples out.
    """
    _refuse_strangers(found)
    total = next(iter(found.values())).record.total
    owner: list[str | None] = [None] * total
    for name, part in found.items():
        for row in part.rows.tolist():
            if owner[row] is not None:
                raise ResultError(
                    f"the parts {owner[row]} and {name} overlap: both hold sample {row}; leave the shards of one cut"
                )
            owner[row] = name
    holes = [row for row, name in enumerate(owner) if name is None]
    if holes:
        count = next(iter(found.values())).record.count
        shards = sorted({row % count + 1 for row in holes})
        named = ", ".join(str(Shard(number, count)) for number in shards)
        raise ResultError(f"{len(shards)} of {count} parts are missing: run 'harness evaluate' with --shard {named}")
    members = list(found.values())
    order = np.argsort(np.concatenate([part.rows for part in members]))
    arrays = [part.verdicts.arrays() for part in members]
    verdicts = Verdicts(**{name: np.concatenate([each[name] for each in arrays])[order] for name in arrays[0]})
    return Joined(_result(members, verdicts), verdicts, _points(members))


def keep(found: Mapping[str, Part], root: Path, *, adversarial: bool = True, force: bool = False) -> Path:
    """Join parts and store the result under the folder of the results; returns its file.

    Args:
        adversarial: keep the adversarial examples beside it. force: as in `harness.results.store.save`.

    Raises:
        ResultError: as `join`.
        StorageError: it cannot be written.
    """
    joined = join(found)
    packed = joined.packed() if adversarial else None
    return store.save(joined.result, joined.verdicts, root, adversarial=packed, force=force)


def _refuse_strangers(found: Mapping[str, Part]) -> None:
    names = list(found)
    first = found[names[0]].record
    for name in names[1:]:
        record = found[name].record
        if record.result.evaluation_id != first.result.evaluation_id or record.total != first.total:
            raise ResultError(
                f"the part {name} is of another evaluation than {names[0]}: {_told_apart(record.result, first.result)}"
            )
        if record.result.record_id != first.result.record_id:
            raise ResultError(
                f"the part {name} has another name, claim or flag in its record than {names[0]}: run it again"
            )


def _told_apart(one: Result, other: Result) -> str:
    for what in ("checkpoint", "suite", "seed", "threat"):
        if getattr(one, what) != getattr(other, what):
            return f"its {what} is {getattr(one, what)!r}, not {getattr(other, what)!r}"
    return f"its id is {one.evaluation_id[:12]}, not {other.evaluation_id[:12]}"


def _points(members: Sequence[Part]) -> np.ndarray[Any, Any]:
    rows = np.concatenate([part.rows[part.verdicts.broken_by >= 0] for part in members])
    points: np.ndarray[Any, Any] = np.concatenate([part.points for part in members])[np.argsort(rows)]
    return points


def _result(members: Sequence[Part], verdicts: Verdicts) -> Result:
    results = [part.record.result for part in members]
    first, n = results[0], len(verdicts)
    steps = [_step(rows) for rows in zip(*(result.steps for result in results), strict=True)]
    model_seconds = sum(result.model_seconds for result in results)
    busy = sum((result.overhead or 0.0) * result.model_seconds for result in results)
    changed = {
        "n": n,
        "clean_acc": float((verdicts.clean_pred == verdicts.y).mean()),
        "robust_acc": float(verdicts.robust.mean()),
        "steps": steps,
        "flags": _flags(members, steps, verdicts),
        "environment": _environment([result.environment for result in results]),
        "started": min(result.started for result in results),
        "recorded": datetime.now(UTC).isoformat(timespec="microseconds"),
        "seconds": sum(result.seconds for result in results),
        "model_seconds": model_seconds,
        "overhead": busy / model_seconds if model_seconds > 0 else None,
        "harness_version": _each_once(result.harness_version for result in results),
    }
    return first.model_copy(update=changed)


def _step(rows: Sequence[StepRecord]) -> StepRecord:
    return rows[0].model_copy(update={name: sum(getattr(row, name) for row in rows) for name in _SUMMED})


def _flags(members: Sequence[Part], steps: list[StepRecord], verdicts: Verdicts) -> list[Flag]:
    """Each flag once. What depends on several samples follows anew from all, as the whole may deserve what no part
    does."""
    record = members[0].record
    anew = _ANEW | indicators.codes()
    joined: list[Flag] = []
    counts: dict[tuple[str, str], int] = {}
    for flag in (flag for part in members for flag in part.record.result.flags if flag.code not in anew):
        if flag.code in _COUNTED and "step" in flag.figures:
            place = flag.code, str(flag.figures["step"])
            counts[place] = counts.get(place, 0) + int(flag.figures["samples"])
        else:
            joined.append(flag)
    for position, step in enumerate(steps):
        found = [
            kind(samples=counts[kind.code, step.name], of=getattr(step, of))
            for kind, of in _COUNTED.values()
            if (kind.code, step.name) in counts
        ]
        found += claims_rejected(step.rejected, step.judge)
        if position and step.name in record.gradient_free and step.before > step.after:
            found.append(gradient_free_gain(step.before, step.after, len(verdicts)))
        joined += [flag.of_step(step.name) for flag in found]
    joined += indicators.flags((trial for part in members for trial in part.record.trials), len(verdicts))
    joined += plausible.guessing(verdicts.y, verdicts.clean_pred, record.result.dataset.classes)
    return unique(joined)


def _environment(found: Sequence[Environment]) -> Environment:
    first = found[0]
    text = ("python", "platform", "processor", "device")
    versions = {name for each in found for name in each.versions}
    commits = [each.git_commit for each in found if each.git_commit is not None]
    changed: dict[str, Any] = {
        **{name: _each_once(getattr(each, name) for each in found) for name in text},
        "versions": {
            name: _each_once(each.versions[name] for each in found if name in each.versions)
            for name in sorted(versions)
        },
        # what was done to the model is the same in all of them, what was timed or compared is not
        "passes": [*first.passes, *_other_ways(found), f"shards:{len(found)}"],
        "batch_size": max(each.batch_size for each in found),
        "workers": max(each.workers for each in found),
        "threads": max(each.threads for each in found),
        "git_commit": _each_once(commits) if commits else None,
        "git_dirty": any(bool(each.git_dirty) for each in found) if commits else None,
    }
    return first.model_copy(update=changed)


def _other_ways(found: Sequence[Environment]) -> list[str]:
    """Backends of parts that were made otherwise than the first; the first note says which it is."""
    others = [each.passes[0] for each in found if each.passes[:1] != found[0].passes[:1] and each.passes]
    return [f"in another shard: {name}" for name in dict.fromkeys(others)]


def _each_once(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))
