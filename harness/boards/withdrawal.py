"""Taking results back: they stay where they are, count no longer, and boards say why."""

from __future__ import annotations

from pathlib import Path

from harness.errors import ResultError
from harness.results import history, store
from harness.results.history import Entry
from harness.results.record import Result

__all__ = ["retract", "supersede"]


def retract(result: str | Path, *, reason: str, by: str = "") -> Entry:
    """Take a result back; returns the line that was added to the history of its folder.

    Args:
        result: its file. by: who says so.

    Raises:
        ResultError: no reason, no such result, or one that was taken back before.
        StorageError: the history cannot be written.
    """
    path = Path(result).expanduser()
    line = history.entry("retracted", path, _counting(path), reason=_given(reason), by=by)
    history.add(path.parent, line)
    return line


def supersede(old: str | Path, new: str | Path, *, reason: str, by: str = "") -> Entry:
    """Let a result take the place of another one in the same folder; returns the line that was added to its history.

    Args:
        old, new: their files.

    Raises:
        ResultError: as `retract`, or the two are one, lie in different folders, or belong on different boards.
        StorageError: the history cannot be written.
    """
    first, second = Path(old).expanduser(), Path(new).expanduser()
    before, after = _counting(first), _counting(second)
    if history.result_key(before) == history.result_key(after):
        raise ResultError(f"{old} and {new} are the same result: name the one that takes the place of the other")
    if first.resolve().parent != second.resolve().parent:
        raise ResultError(f"{new} does not lie beside {old}: take it into that folder first, with 'harness add'")
    line = history.entry("superseded", first, before, reason=_given(reason), successor=after, by=by)
    if not line.is_about(after):
        raise ResultError(
            f"{old} and {new} are of different boards: expected one data set, threat model, and all images or fewer"
        )
    history.add(first.parent, line)
    return line


def _given(reason: str) -> str:
    if not reason.strip():
        raise ResultError("a result is taken back for a reason: say which")
    return reason


def _counting(path: Path) -> Result:
    result = store.read(path)
    taken_back = history.withdrawals(history.read(path.parent))(result)
    if taken_back is not None:
        raise ResultError(f"the result {path} was taken back before: {taken_back.text}")
    return result
