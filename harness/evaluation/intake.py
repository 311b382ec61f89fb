"""Taking a result from elsewhere into a folder of results, verified first where that is possible."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ResultError
from harness.evaluation.verification import Verification, verify
from harness.results import history, store
from harness.results.history import Entry
from harness.results.record import SCHEMA_VERSION, Result
from harness.util.files import check_writable

__all__ = ["Taken", "take_in"]


@dataclass(frozen=True)
class Taken:
    """A result in the folder.

    Attributes:
        is_new: whether it was not there before.
        verification: what was found out about it; None where it was there already, and verified by the same one.
    """

    path: Path
    result: Result
    is_new: bool
    verification: Verification | None = None


def take_in(
    file: str | Path, folder: str | Path, *, by: str = "", require_verification: bool = False, **material: Any
) -> Taken:
    """Copy a result with its verdicts and adversarial examples into a folder, if nothing is wrong with it.

    Schema, hashes and verdicts are checked, and then all that `harness.verify` checks. What that finds wrong is never
    taken in; what it could not check, because weights, images or examples are not at hand, is taken in without the line
    in the folder's history that says that it was verified. A result that is there already gets that line where it has
    none, since whoever took it in may have been cut off.

    Args:
        by: who verifies it, for that line.
        require_verification: take nothing in that could not be checked in full.
        **material: of `harness.verify`: where model and images are found.

    Raises:
        InvalidInput: ``by`` is too long.
        ResultError: it is no result, was changed, contradicts itself or what was verified, or was taken
            back, here or where it comes from.
        StorageError: the folder cannot be written.
    """
    path, root = Path(file).expanduser(), Path(folder).expanduser()
    history.check_by(by)
    result = store.read(path)
    if result.content_sha256 is None:
        raise ResultError(
            f"the result {path} is of an older schema version than {SCHEMA_VERSION} and has no hash of its content: "
            "evaluate again"
        )
    lines = history.read(root)
    taken_back = history.withdrawals([*lines, *history.read(path.parent)])(result)
    if taken_back is not None:
        raise ResultError(f"the result {path} was taken back: {taken_back.text}")
    known = store.find_same(root, result)
    if known is not None and _is_noted(lines, store.read(known), by):
        return Taken(known, result, is_new=False)
    check_writable(root, "--results")  # before the passes of a verification
    verification = verify(known or path, **material)
    not_so = "is not taken in" if known is None else f"is there already, as {known}, but is not verified"
    for check in verification.checks:
        if check.holds is False or (require_verification and not check.holds):
            what = "is wrong" if check.holds is False else "could not be checked"
            raise ResultError(f"the result {path} {not_so}, its {check.name} {what}: {check.text}")
    there = known or store.take_in(path, root)
    result = store.read(there)
    if verification.holds:
        history.add(root, history.entry("verified", there, result, by=by))
    return Taken(there, result, is_new=known is None, verification=verification)


def _is_noted(lines: Iterable[Entry], result: Result, by: str) -> bool:
    """Whether the history says that a result was verified, by the one who is named if anybody is."""
    key = history.result_key(result)
    return any(line.action == "verified" and line.result == key and by in ("", line.by) for line in lines)
