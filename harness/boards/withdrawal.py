"""Taking results back: they stay where they are, count no longer, and boards say why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.errors import ResultError
from harness.results import history, store
from harness.results.history import Entry
from harness.results.identity import network_id, run_id
from harness.results.record import Result
from harness.util.text import printable

__all__ = ["retract", "supersede"]


def retract(result: str | Path, *, reason: str, by: str = "") -> Entry:
    """Take a result back; returns the line that was added to the history of its folder.

    Args:
        result: its file. by: who says so.

    Raises:
        InvalidInput: a name that is too long.
        ResultError: no reason, no such result, or one that was taken back before.
        StorageError: the history cannot be written; nothing was added.
    """
    path = Path(result).expanduser()
    line = history.entry("retracted", path, store.read(path), reason=_given(reason), by=by)
    with history.locked(path.parent):
        _counting(path)
        history.append(path.parent, line)
    return line


def supersede(old: str | Path, new: str | Path, *, reason: str, by: str = "") -> Entry:
    """Let a result take the place of another one in the same folder; returns the line that was added to its history.

    Both are of the same data set, images, threat model and suite, and of the same model: of the same network, whatever
    it is called, or of another one under the same name, such as one that was trained again. Records of one run may
    differ in the names of suite and model, which is how a name is mended.

    Args:
        old, new: their files.

    Raises:
        InvalidInput: a name that is too long.
        ResultError: as `retract`, or the two are one, lie in different folders, or are not of the same kind.
        StorageError: the history cannot be written; nothing was added.
    """
    first, second = Path(old).expanduser(), Path(new).expanduser()
    store.read(first)  # or a mistyped folder would be made for the lock
    with history.locked(first.parent):  # or each of two could take the place of the other at once
        before, after = _counting(first), _counting(second)
        if history.result_key(before) == history.result_key(after):
            raise ResultError(f"{old} and {new} are the same result: name the one that takes the place of the other")
        if first.resolve().parent != second.resolve().parent:
            raise ResultError(f"{new} does not lie beside {old}: take it into that folder first, with 'harness add'")
        line = history.entry("superseded", first, before, reason=_given(reason), successor=after, by=by)
        different = ", ".join(_differences(line, before, after))
        if different:
            raise ResultError(
                f"{new} cannot take the place of {old}, of which it differs in {different}: name a result of the same "
                "model, data set, threat model and suite, or take the old one back with 'harness retract'"
            )
        history.append(first.parent, line)
    return line


def _differences(line: Entry, old: Result, new: Result) -> Iterator[str]:
    """In what two results differ of which one is to take the place of the other."""
    if _images(old) != _images(new):
        yield f"data set ({_shown_images(new)} instead of {_shown_images(old)})"
    elif not line.is_about(new):
        yield f"threat model ({new.threat.text} instead of {old.threat.text})"
    if run_id(old) == run_id(new):
        return  # the verdicts are the same, so that only names can be others
    if old.suite != new.suite:
        yield f"suite ({printable(new.suite)} instead of {printable(old.suite)})"
    if old.label != new.label and network_id(old.model) != network_id(new.model):
        yield f"network ({printable(new.label)}, with other weights, instead of {printable(old.label)})"


def _images(result: Result) -> tuple[object, ...]:
    data = result.dataset
    return data.name, data.split, data.sha256, result.n, data.size


def _shown_images(result: Result) -> str:
    data = result.dataset
    return f"{result.n:,} of {data.size:,} images of {printable(data.name)} {printable(data.split)}, {data.sha256[:8]}"


def _given(reason: str) -> str:
    if not reason.strip():
        raise ResultError("a result is taken back for a reason: say which")
    return reason


def _counting(path: Path) -> Result:
    """A result that was not taken back."""
    result = store.read(path)
    taken_back = history.withdrawals(history.read(path.parent))(result)
    if taken_back is not None:
        raise ResultError(f"the result {path} was taken back before: {taken_back.text}")
    return result
