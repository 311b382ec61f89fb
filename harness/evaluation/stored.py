"""The store as an evaluation sees it: what is there is found, what is missing is run and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.engine.types import AttackProgress
from harness.errors import ResultError
from harness.evaluation import _evaluate
from harness.evaluation._evaluate import Evaluation
from harness.evaluation.plan import Plan
from harness.results import store
from harness.results.adversarial import packed_examples
from harness.results.record import Result
from harness.util.images import Images

__all__ = ["Stored", "find", "keep", "obtain"]


@dataclass(frozen=True)
class Stored:
    """A result in the store.

    Attributes:
        ran: whether it was attacked for it now.
    """

    path: Path
    result: Result
    ran: bool = False


def find(plan: Plan, root: Path) -> Stored | None:
    """The stored result with the verdicts of a plan, if there is one; nothing is run or written.

    Of several records of these verdicts one under the plan's own checkpoint name is taken, of those the latest.

    Raises:
        ResultError: a file that is named like one of them is damaged.
    """
    known = store.find_all(root, plan.evaluation_id)
    own = [(path, result) for path, result in known if result.checkpoint == plan.target.name]
    if own:
        return Stored(*max(own, key=lambda found: found[1].recorded))
    return Stored(*known[0]) if known else None


def keep(done: Evaluation, x: Images, root: Path, *, adversarial: bool = True, force: bool = False) -> Path:
    """Store an evaluation with the adversarial example of every broken sample; returns the result file's path.

    Args:
        x: ``[n, ...]`` the clean images that it was made on.
        adversarial: False leaves the examples out; `harness.evaluation.verify` then cannot check what was broken.
        force: as in `harness.results.store.save`.

    Raises:
        ResultError, StorageError: as `harness.results.store.save`.
    """
    packed = packed_examples(done.result, done.verdicts, done.points, x) if adversarial else None
    return store.save(done.result, done.verdicts, root, adversarial=packed, force=force)


def obtain(
    plan: Plan,
    root: Path,
    *,
    adversarial: bool = True,
    force: bool = False,
    progress: Callable[[AttackProgress], None] | None = None,
) -> Stored:
    """The result of a plan: found in the store, or else run and stored.

    Where the verdicts are there, but under another name, other claims of the manifest or without flags that are raised
    now, they are not made again: they are stored under a record of their own, which names the result they are from.

    Args:
        adversarial: store the adversarial example of every broken sample with it.
        force: run it, whatever is stored.

    Raises:
        ResultError: the folder cannot be written, or holds a damaged result of this evaluation.
    """
    try:
        known = find(plan, root)
    except ResultError:
        if not force:
            raise
        known = None
    if known is not None:
        plan.state.clear_if_older(known.path)
    if known is None or force:
        done = _evaluate.run(plan, progress=progress, keep_state=True)
        path = keep(done, plan.target.x, root, adversarial=adversarial, force=force)
        done.state.clear()
        return Stored(path, store.read(path), ran=True)
    if known.result.record_id == plan.record_id and not _unrecorded(plan, known):
        return known
    # forced, because an older record may say the same, and the last one counts
    path = store.save(_recorded_anew(plan, known), store.read_verdicts(known.path), root, force=True)
    return Stored(path, store.read(path))


def _unrecorded(plan: Plan, known: Stored) -> list[Flag]:
    """Flags of audit checks that the record does not have, as the checks were others when it was made."""
    return [flag for flag in plan.checked if flag not in known.result.flags]


def _recorded_anew(plan: Plan, known: Stored) -> Result:
    """The result under the plan's name, claims and flags, with what was found when it ran."""
    found = [flag for flag in known.result.flags if flag.code not in kinds.KNOWN_BEFORE] + _unrecorded(plan, known)
    changed = {
        "flags": [*plan.flags, *found],
        "record_id": plan.record_id,
        "recorded": datetime.now(UTC).isoformat(timespec="microseconds"),
        "verdicts_from": known.result.verdicts_from or known.path.name,
    }
    return known.result.model_copy(update=plan.description | changed)
