"""Taking a result from elsewhere into a folder of results, verified first where that is possible."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ResultError
from harness.evaluation.verification import Verification, verify
from harness.results import history, store
from harness.results.record import SCHEMA_VERSION, Result

__all__ = ["Taken", "take_in"]


@dataclass(frozen=True)
class Taken:
    """A result in the folder.

    Attributes:
        is_new: whether it was not there before.
        verification: what was found out about it; None where it was there already.
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
    in the folder's history that says that it was verified.

    Args:
        by: who verifies it, for that line.
        require_verification: take nothing in that could not be checked in full.
        **material: of `harness.verify`: where model and images are found.

    Raises:
        ResultError: it is no result, was changed, contradicts itself or what was verified, or was taken
            back, here or where it comes from.
        StorageError: the folder cannot be written.
    """
    path, root = Path(file).expanduser(), Path(folder).expanduser()
    result = store.read(path)
    if result.content_sha256 is None:
        raise ResultError(
            f"the result {path} is of an older schema version than {SCHEMA_VERSION} and has no hash of its content: "
            "evaluate again"
        )
    taken_back = history.withdrawals([*history.read(root), *history.read(path.parent)])(result)
    if taken_back is not None:
        raise ResultError(f"the result {path} was taken back: {taken_back.text}")
    known = store.find_same(root, result)
    if known is not None:
        return Taken(known, result, is_new=False)
    verification = verify(path, **material)
    for check in verification.checks:
        if check.holds is False or (require_verification and not check.holds):
            what = "is wrong" if check.holds is False else "could not be checked"
            raise ResultError(f"the result {path} is not taken in, its {check.name} {what}: {check.text}")
    there = store.take_in(path, root)
    result = store.read(there)
    if verification.holds:
        history.add(root, history.entry("verified", there, result, by=by))
    return Taken(there, result, is_new=True, verification=verification)
