"""What a hostile file is, and the ways to be hostile that files of any kind have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.util.files import write_atomically

__all__ = ["Case", "Kind", "Trap", "broken_json", "broken_toml", "sparse", "strange", "text"]

Write = Callable[[Path], object]
"""Makes the file at a path."""


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("sprung"),)


@dataclass(frozen=True)
class Kind:
    """A kind of file that the package reads.

    Attributes:
        file: where it lies. read: reads it. prepare: makes what else is there.
    """

    name: str
    file: str
    read: Callable[[Path], object]
    prepare: Callable[[Path], object] = lambda path: None


@dataclass(frozen=True)
class Case:
    """A hostile file.

    Attributes:
        write: puts it at the path of its kind, where something sound may lie.
        message: what the error says, as a regular expression; None where the file is ignored, as if it were not there.
    """

    kind: Kind
    name: str
    write: Write
    message: str | None

    def __str__(self) -> str:
        return f"{self.kind.name}: {self.name}"


def text(content: str | bytes | Callable[[], bytes]) -> Write:
    """A file with this content, which may be made only when it is needed."""

    def write(path: Path) -> None:
        made = content() if callable(content) else content
        path.write_bytes(made.encode() if isinstance(made, str) else made)

    return write


def sparse(size: int, head: bytes = b"") -> Write:
    """A file of that size which takes no room on the disk."""

    def write(path: Path) -> None:
        path.write_bytes(head)
        os.truncate(path, size)

    return write


def _instead(make: Callable[[Path], object]) -> Write:
    def write(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return write


_STRANGE: dict[str, Write] = {
    "pipe": _instead(os.mkfifo),
    "link to a device": _instead(lambda path: path.symlink_to("/dev/zero")),
    "link to itself": _instead(lambda path: path.symlink_to(path)),
    "folder": _instead(lambda path: path.mkdir()),
    "sparse file of 20 GB": _instead(sparse(20 << 30)),
    "empty": _instead(lambda path: write_atomically(path, b"")),
}


def strange(kind: Kind, message: str | None, *, but: tuple[str, ...] = ()) -> Iterator[Case]:
    """What is no file of content at all.

    Args:
        but: names of cases that mean something else in this kind.
    """
    return (Case(kind, name, write, message) for name, write in _STRANGE.items() if name not in but)


def broken_json(kind: Kind, message: str | None) -> Iterator[Case]:
    """What no JSON file should hold."""
    for name, content in {
        "nested 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
        "objects nested 100,000 deep": b'{"a":' * 100_000,
        "number of 5,000 digits": b'{"n": ' + b"9" * 5000 + b"}",
        "1e999999999": b'{"n": 1e999999999}',
        "NaN": b'{"n": NaN}',
        "same key twice": b'{"n": 1, "n": 2}',
        "UTF-16": '{"n": 1}'.encode("utf-16"),
        "half a surrogate pair": b'{"n": "\\ud800"}',
        "list": b"[1, 2]",
        "number": b"5",
    }.items():
        yield Case(kind, name, text(content), message)


def broken_toml(kind: Kind, message: str) -> Iterator[Case]:
    """What no TOML file should hold."""
    contents: dict[str, bytes | Callable[[], bytes]] = {
        "arrays nested 100,000 deep": b"a = " + b"[" * 100_000 + b"]" * 100_000,
        "tables nested 100,000 deep": b"a = " + b"{b = " * 100_000,
        "dotted key of 50,000 parts": b"a" + b".a" * 50_000 + b" = 1",
        "dotted table of 50,000 parts": b"[a" + b".a" * 50_000 + b"]",
        "number of 5,000 digits": b"a = " + b"9" * 5000,
        "40 MB of text": lambda: b'a = "' + b"x" * (40 << 20) + b'"',
        "not UTF-8": b'a = "\xff\xfe"',
        "control characters": b'a = "\x1b]0;title\x07"',
    }
    for name, content in contents.items():
        yield Case(kind, name, text(content), message)
