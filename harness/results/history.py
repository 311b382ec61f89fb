"""What has happened to the results in a folder since they were stored: verified, retracted, superseded.

A line of JSON each in the file ``history.jsonl`` beside the results. Lines are only ever added, each whole or not at
all and by one process at a time: a result that was taken back stays where it is, and boards leave it out and say so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Literal

from pydantic import Field

from harness._version import __version__
from harness.errors import HarnessError, InvalidInput, ResultError, StorageError
from harness.results.identity import run_id
from harness.results.record import Result
from harness.threat import ThreatModel
from harness.util.locks import alone
from harness.util.reading import open_bounded, parse_json
from harness.util.text import printable
from harness.util.validation import Record, validate

__all__ = [
    "FILE",
    "Action",
    "Entry",
    "add",
    "append",
    "check_by",
    "entry",
    "locked",
    "read",
    "result_key",
    "withdrawals",
]

FILE = "history.jsonl"
"""Name of the file, beside the results."""

Action = Literal["verified", "retracted", "superseded"]

_LARGEST = 1 << 26
_LONGEST = 2_000
_LONGEST_BY = 200
_LOCK = f".{FILE}.lock"


class Entry(Record):
    """One line.

    Attributes:
        result: `result_key` of the result. run: `harness.results.identity.run_id` of it. file: that it was stored as.
        label, suite, dataset, split, norm, eps, n, partial: of the result, which may be gone.
        successor: `result_key` of the result that took its place.
        by: who says so, in their own words; nobody checks it. at: when, UTC, ISO 8601.
    """

    action: Action
    result: str = Field(max_length=200)
    run: str = Field(max_length=200)
    file: str = Field(max_length=500)
    label: str
    suite: str
    dataset: str
    split: str
    norm: str
    eps: str
    n: int = Field(ge=1)
    partial: bool
    reason: str = Field(default="", max_length=_LONGEST)
    successor: str | None = Field(default=None, max_length=200)
    by: str = Field(default="", max_length=_LONGEST_BY)
    at: str = Field(max_length=40)
    harness_version: str = Field(max_length=40)

    @property
    def withdraws(self) -> bool:
        """Whether the result counts no longer."""
        return self.action != "verified"

    @property
    def text(self) -> str:
        """The line for people."""
        by = f" by {self.by}" if self.by else ""
        successor = f" in favour of result {self.successor[:12]}" if self.successor else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.at[:10]} {self.label}, {self.suite}, {self.action}{successor}{by}{reason} ({self.result[:12]})"

    def is_about(self, result: Result) -> bool:
        """Whether results like this one are on the same board: data set, norm, radius, and all images or fewer."""
        threat = result.threat
        return (self.dataset, self.split, self.norm, self.partial) == (
            result.dataset.name,
            result.dataset.split,
            threat.norm,
            result.partial,
        ) and abs(ThreatModel("Linf", self.eps).radius - threat.radius) <= 1e-9 * threat.radius


def result_key(result: Result) -> str:
    """What a result is known by: the hash of its content, of its record where it is of version 1, which has none."""
    return result.content_sha256 or result.record_id


def entry(
    action: Action, path: Path, result: Result, *, reason: str = "", successor: Result | None = None, by: str = ""
) -> Entry:
    """A line about the result in the file ``path``, now.

    Raises:
        InvalidInput: as `check_by`.
        ResultError: a reason that is too long.
    """
    check_by(by)
    fields = {
        "action": action,
        "result": result_key(result),
        "run": run_id(result),
        "file": path.name,
        "label": result.label,
        "suite": result.suite,
        "dataset": result.dataset.name,
        "split": result.dataset.split,
        "norm": result.threat.norm,
        "eps": result.threat.eps,
        "n": result.n,
        "partial": result.partial,
        "reason": reason,
        "successor": None if successor is None else result_key(successor),
        "by": by,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "harness_version": __version__,
    }
    return validate(Entry, fields, "the line for the history cannot be used", raises=ResultError)


def check_by(by: str) -> None:
    """Find out before any work that a line of the history cannot say who it is from.

    Raises:
        InvalidInput: the name is too long, or no text.
    """
    if len(by) > _LONGEST_BY:
        raise InvalidInput(
            f"the name of who says so (by) has {len(by):,} characters, a line of the history takes {_LONGEST_BY}: "
            "give a shorter one"
        )
    try:
        by.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"the name of who says so (by) is no text in UTF-8, got {by!r}: write it in UTF-8"
        ) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within it no other process adds to the history of a folder, so that what was read there stays true.

    Raises:
        StorageError: the folder cannot be written.
    """
    with alone(folder / _LOCK, waiting=lambda owner: None):  # who holds it waits for nobody, so it takes no time
        yield


def add(folder: Path, line: Entry) -> Path:
    """Add a line to the history of a folder; returns the file.

    Raises:
        ResultError: the history that is there is damaged.
        StorageError: it cannot be written; nothing was added.
    """
    with locked(folder):
        return append(folder, line)


def append(folder: Path, line: Entry) -> Path:
    """`add` for who is within `locked` already.

    Raises:
        ResultError, StorageError: as `add`.
    """
    read(folder)  # behind a damaged line nobody would read it
    path, content = folder / FILE, line.model_dump_json(exclude_defaults=True).encode() + b"\n"
    try:
        with path.open("a+b", buffering=0) as file:
            length = file.seek(0, os.SEEK_END)
            try:
                _write(file, content if _ends_a_line(file, length) else b"\n" + content)
                os.fsync(file.fileno())
            except BaseException:
                with suppress(OSError):
                    file.truncate(length)  # half a line would keep everybody from the whole history
                raise
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}; make room or choose another folder") from error
    return path


def _ends_a_line(file: FileIO, length: int) -> bool:
    """Whether what is there ends as it was written here; an editor may have left the last line open."""
    if not length:
        return True
    file.seek(length - 1)
    return file.read(1) == b"\n"


def _write(file: FileIO, content: bytes) -> None:
    """All of it; the system may take a part at a time."""
    while content:
        content = content[file.write(content) or 0 :]


def read(folder: Path) -> list[Entry]:
    """The history of a folder, in the order in which it was written; empty where there is none.

    Raises:
        ResultError: the folder is none, or a line cannot be read. A board without it might rank what was taken back.
    """
    path = folder / FILE
    try:
        with open_bounded(path, _LARGEST) as (file, size):
            content = file.read(size)  # what is added meanwhile came later
    except FileNotFoundError:
        return []
    except NotADirectoryError as error:
        raise ResultError(
            f"expected a folder of results, got {folder}, which is no folder: name one with --results"
        ) from error
    except OSError as error:
        raise ResultError(f"cannot read the history {path}: {error.strerror}") from error
    except ValueError as error:
        raise ResultError(f"cannot read the history {path}: {error}") from error
    lines = content.split(b"\n")
    return [
        _parsed(line, f"line {number} of the history {path} is damaged", cut_off=number == len(lines))
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]


def withdrawals(lines: Iterable[Entry]) -> Callable[[Result], Entry | None]:
    """What says of a result which line took it back, None where none did.

    With one record of a run all of them are taken back, whatever they and their files are called, since they hold the
    same verdicts. The one that took the place of another record of its run counts, until it is taken back itself.
    """
    by_record: dict[str, Entry] = {}
    by_run: dict[str, list[Entry]] = {}
    for line in lines:
        if line.withdraws:
            by_record.setdefault(line.result, line)
            by_run.setdefault(line.run, []).append(line)

    def find(result: Result) -> Entry | None:
        key = result_key(result)
        if key in by_record:
            return by_record[key]
        of_run = by_run.get(run_id(result), [])
        return next((line for line in of_run if key not in _successors(line, of_run)), None)

    return find


def _successors(line: Entry, of_run: Sequence[Entry]) -> set[str]:
    """The records of the same run that took the place of what a line is about, one after the other."""
    following = {other.result: other.successor for other in of_run}
    found: set[str] = set()
    successor = line.successor
    while successor is not None and successor not in found:
        found.add(successor)
        successor = following.get(successor)
    return found


def _parsed(line: bytes, what: str, *, cut_off: bool) -> Entry:
    """A line as it was written.

    Args:
        what: begins the error. cut_off: whether it may be half a line, as nothing follows it.

    Raises:
        ResultError: it is damaged; the error says what to do.
    """
    try:
        return _valid(line, what)
    except ResultError as error:
        remedy = (
            "it was cut off while it was written, so remove this last line and repeat the command that it is from"
            if cut_off and not line.rstrip().endswith(b"}")
            else "restore it from a copy of the file, as it may take back a result"
        )
        raise ResultError(f"{error}; {remedy}") from error


def _valid(line: bytes, what: str) -> Entry:
    try:
        content = parse_json(line)
    except ValueError as error:
        raise ResultError(f"{what}: {printable(error)}") from error
    if not isinstance(content, dict):
        raise ResultError(f"{what}: expected a JSON object, got {type(content).__name__}")
    parsed = validate(Entry, content, what, raises=ResultError, strict=True)
    try:
        ThreatModel("Linf", parsed.eps)
    except HarnessError as error:
        raise ResultError(f"{what}: {error}") from error
    return parsed
