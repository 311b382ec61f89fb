"""Files are read up to a size, and JSON means one thing or is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.util.reading import parse_json, read_bounded


def test_a_file_of_the_allowed_size(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(ValueError, match="5 bytes, at most 4"):
        read_bounded(path, 4)


def test_a_sparse_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(20 << 30)
    with pytest.raises(ValueError, match="at most"):
        read_bounded(path, 1 << 20)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    for path in (pipe, link):
        with pytest.raises(ValueError, match="no regular file"):
            read_bounded(path, 100)
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises((OSError, ValueError)):
            read_bounded(path, 100)


def test_plain_json() -> None:
    text = '{"a": [1, 2.5, -1e-3, true, null, "\\u00e9\\ud83d\\ude00"], "b": {"c": 18446744073709551615}}'
    value = {"a": [1, 2.5, -1e-3, True, None, "é😀"], "b": {"c": (1 << 64) - 1}}
    assert parse_json(text.encode()) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting"),
        (b'{"a": 1} x', "Extra data"),
        (b'{"a": 1, "a": 2}', "'a' is there twice"),
        (b'[{"b": {"a": 1, "a": 1}}]', "'a' is there twice"),
        (b"NaN", "NaN is no number"),
        (b"[-Infinity]", "-Infinity is no number"),
        (b"1e999", "too large"),
        (b"-1e400", "too large"),
        (b"18446744073709551616", "too large"),
        (b"1" * 100_000, "too large"),
        (b"[" * 33 + b"]" * 33 + b"", "nested more than 32"),
        (b"[" * 100_000 + b"]" * 100_000, "nested more than 32"),
        (b'{"a":' * 100_000, "nested more than 32"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b"\xff\xfe1\x00", "utf-8"),
        ("1".encode("utf-16"), "utf-8"),
    ],
)
def test_json_that_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)
