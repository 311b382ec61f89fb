"""The store as an evaluation sees it: what is there is found, what is missing is run and kept."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
from harness.results.found import Stored, latest
from harness.results.record import Result
from harness.util.images import Images
from harness.util.locks import alone

__all__ = ["Stored", "find", "keep", "obtain", "recorded", "running_alone"]


def find(plan: Plan, root: Path) -> Stored | None:
    """The stored result with the verdicts of a plan, if there is one; nothing is run or written.

    Of several records of these verdicts one is taken as `harness.results.found.latest` says.

    Raises:
        ResultError: a file that is named like one of them is damaged.
    """
    return latest(root, plan.evaluation_id, plan.target.name)


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
        ResultError: the folder holds a damaged result of this evaluation.
        StorageError: it cannot be written.
    """
    try:
        known = find(plan, root)
    except ResultError:
        if not force:
            raise
        known = None
    if known is None or force:
        with running_alone(plan, root):
            # another process may have stored it while this one waited
            known = None if force else find(plan, root)
            if known is None:
                done = _evaluate.run(plan, progress=progress, keep_state=True)
                path = keep(done, plan.target.x, root, adversarial=adversarial, force=force)
                done.state.clear()
                return Stored(path, store.read(path), ran=True)
    return recorded(plan, known, root)


def recorded(plan: Plan, known: Stored, root: Path) -> Stored:
    """A stored result of a plan under the plan's own name, claims and flags; stored anew where these are others.

    Raises:
        ResultError: its verdicts are damaged.
        StorageError: it cannot be written.
    """
    plan.state.clear_if_older(known.path)
    if known.result.record_id == plan.record_id and not _unrecorded(plan, known):
        return known
    # forced, because an older record may say the same, and the last one counts
    path = store.save(_recorded_anew(plan, known), store.read_verdicts(known.path), root, force=True)
    return Stored(path, store.read(path))


@contextmanager
def running_alone(plan: Plan, root: Path, meanwhile: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Within it no other process runs the evaluation of a plan with results under ``root``; one that does is waited
    for, which a warning says.

    Args:
        meanwhile: called again and again while it is waited for.

    Raises:
        StorageError: the folder of saved states cannot be written, or what lies there is another user's.
    """
    plan.state.check_own()
    folder = plan.settings.state_dir or root / ".harness-state"
    part = "" if plan.part is None else f"-{plan.part.label}"

    def waiting(owner: str) -> None:
        warnings.warn(
            f"{plan.target.name} under {plan.suite.name} is evaluated by another process ({owner}): waiting for it",
            stacklevel=1,
        )

    with alone(folder / f"{plan.evaluation_id[:24]}{part}.lock", waiting=waiting, meanwhile=meanwhile):
        yield
    if plan.settings.state_dir is None:
        with suppress(OSError):  # states of others are there
            folder.rmdir()


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
