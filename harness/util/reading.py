"""Reading files that anyone may have written: bounded in size, and meaning one thing only."""

from __future__ import annotations

import json
import math
import os
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

__all__ = ["open_bounded", "parse_json", "read_bounded", "read_lines", "read_toml"]

_LARGEST_INTEGER = 1 << 64
_MOST_DOTS = 100


@contextmanager
def open_bounded(path: Path, most: int) -> Iterator[tuple[BufferedReader, int]]:
    """A regular file of at most ``most`` bytes, and its size.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger, or a pipe, a device or a folder.
    """
    # without waiting for the other end of a pipe
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):
        os.close(descriptor)
        raise ValueError("it is no regular file")
    with os.fdopen(descriptor, "rb") as file:
        if about.st_size > most:
            raise ValueError(f"it has {about.st_size:,} bytes, at most {most:,} are expected")
        yield file, about.st_size


def read_bounded(path: Path, most: int) -> bytes:
    """The content of a regular file of at most ``most`` bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger, or a pipe, a device or a folder.
    """
    with open_bounded(path, most) as (file, size):
        content = file.read(size + 1)  # and not as many as ``most``, which may follow from what a stranger wrote
    if len(content) > size:
        raise ValueError("it grew while it was read")
    return content


def read_lines(path: Path, *, most: int = 1 << 22) -> list[str]:
    """The lines of a text in UTF-8, without spaces around them and without the empty ones.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger than ``most`` bytes, no regular file, or no such text.
    """
    lines = (line.strip() for line in read_bounded(path, most).decode("utf-8").splitlines())
    return [line for line in lines if line]


def parse_json(content: bytes, *, deepest: int = 32) -> Any:
    """JSON in UTF-8, with what two readers could understand differently refused.

    Args:
        deepest: how many lists and objects may lie inside each other.

    Raises:
        ValueError: it is no JSON, holds a key twice, a number that is not finite or longer than 64 bits, text that is
            no Unicode, or is nested too deeply.
    """
    text = content.decode("utf-8")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_integer,
        )
    except RecursionError as error:
        raise ValueError(f"it is nested more than {deepest} deep") from error
    for _ in _levels(value, deepest):
        pass
    if "\\u" in text:  # an escape may be half a surrogate pair, which is no text; what was decoded is none
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def read_toml(path: Path, *, most: int = 1 << 20, deepest: int = 32) -> dict[str, Any]:
    """A TOML file of at most ``most`` bytes.

    Args:
        deepest: how many lists and tables may lie inside each other.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger, no TOML, holds a number of more than 64 bits, or is nested too deeply.
    """
    text = read_bounded(path, most).decode("utf-8")
    # Python's reader takes a time that grows with the square of the parts of a dotted key
    if any(line.partition("=")[0].count(".") > _MOST_DOTS for line in text.splitlines()):
        raise ValueError(f"it is nested more than {deepest} deep")
    try:
        value = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {deepest} deep") from error
    for level in _levels(value, deepest):
        if any(isinstance(part, int) and abs(part) >= _LARGEST_INTEGER for part in level):
            raise ValueError("it holds a number of more than 64 bits")
    return value


def _levels(value: Any, deepest: int) -> Iterator[list[Any]]:
    """The values at each depth of nested lists and objects.

    Raises:
        ValueError: they are nested more than ``deepest`` deep.
    """
    level, depth = [value], 0
    while level:
        yield level
        outer = [part for part in level if isinstance(part, (dict, list))]
        depth += bool(outer)
        if depth > deepest:
            raise ValueError(f"it is nested more than {deepest} deep")
        level = [inner for part in outer for inner in (part.values() if isinstance(part, dict) else part)]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = max(made, key=[key for key, _ in pairs].count)
        raise ValueError(f"the key {twice!r} is there twice")
    return made


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _integer(text: str) -> int:
    value = int(text) if len(text) <= 21 else _LARGEST_INTEGER
    if abs(value) >= _LARGEST_INTEGER:
        raise ValueError(f"the number {text[:40]} is too large")
    return value
