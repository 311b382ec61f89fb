"""When a study was run, by which command and how long it took: noted as it runs, never asked for again.

A report is made of results and of these notes, so that it comes out the same whenever it is made.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import ResultError
from harness.util.files import write_atomically
from harness.util.reading import parse_json, read_bounded
from harness.util.text import printable
from harness.util.validation import Record

__all__ = ["Session", "begin", "note", "read"]

_NAME = "run.json"
_LARGEST = 1 << 24


class Session(Record):
    """One time that the study was run and something was missing.

    Attributes:
        started: UTC, ISO 8601.
        workers: jobs at once.
        jobs: how many were done. seconds, cpu_seconds: until the last of them, or until the end.
        ended: False of one that was killed.
    """

    command: str | None
    started: str
    device: str
    workers: int
    jobs: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    ended: bool = False


def read(output: Path) -> tuple[Session, ...]:
    """The sessions of a study, oldest first.

    Raises:
        ResultError: the notes are damaged.
    """
    path = output / _NAME
    if not path.exists():
        return ()
    try:
        return tuple(Session(**entry) for entry in parse_json(read_bounded(path, _LARGEST)))
    except (OSError, ValueError, TypeError) as error:
        reason = printable(" ".join(str(error).split()), longest=300)
        raise ResultError(f"the notes {path} are damaged ({reason}): delete them, nothing else is lost") from error


def begin(output: Path, *, command: str | None, device: str, workers: int) -> Session:
    """Note that a session begins."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    session = Session(command=command, started=started, device=device, workers=workers)
    _write(output, (*read(output), session))
    return session


def note(output: Path, *, jobs: int, seconds: float, cpu_seconds: float, ended: bool = False) -> None:
    """Note how far the session at work has come."""
    *earlier, last = read(output)
    changed = {"jobs": jobs, "seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1), "ended": ended}
    come = last.model_copy(update=changed)
    _write(output, (*earlier, come))


def _write(output: Path, sessions: tuple[Session, ...]) -> None:
    text = json.dumps([session.model_dump() for session in sessions], indent=2)
    write_atomically(output / _NAME, (text + "\n").encode())
