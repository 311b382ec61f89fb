"""A file is there whole or not at all, and nothing else is left behind."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import pytest
import torch

from harness.errors import StorageError
from harness.util import files
from harness.util.files import check_writable, write_atomically, write_together


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file may become larger than ``size`` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def tensors(stream: IO[bytes]) -> None:
    torch.save({"a": torch.arange(100_000)}, stream)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "file", b"text")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"text"
    assert names(tmp_path / "a" / "b") == ["file"]


@pytest.mark.parametrize("content", [b"x" * 100_000, tensors], ids=["bytes", "torch"])
def test_a_full_disk_is_one_sentence_and_changes_nothing(
    tmp_path: Path, content: bytes | Callable[[IO[bytes]], object]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with (
        small_disk(10_000),
        pytest.raises(StorageError, match=r"cannot write .*file: File too large; make room") as told,
    ):
        write_atomically(path, content)
    assert "\n" not in str(told.value)
    assert path.read_bytes() == b"before"
    assert names(tmp_path) == ["file"]


def test_several_files_are_all_written_or_none(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"before")
    with small_disk(10_000), pytest.raises(StorageError, match=r"cannot write .*new: File too large"):
        write_together({old: b"after", new: b"x" * 100_000})
    assert old.read_bytes() == b"before"
    assert names(tmp_path) == ["old"]
    write_together({old: b"after", new: b"x" * 100_000})
    assert (old.read_bytes(), new.stat().st_size) == (b"after", 100_000)
    assert names(tmp_path) == ["new", "old"]


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file is not a folder"):
        write_atomically(tmp_path / "file" / "inside", b"")


@pytest.mark.parametrize("hard_links", [True, False])
def test_of_several_writers_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hard_links: bool) -> None:
    def unsupported(*paths: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not hard_links:
        monkeypatch.setattr(os, "link", unsupported)
    path, won = tmp_path / "file", []
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        barrier.wait()
        try:
            write_atomically(path, str(number).encode() * 1000, replace=False)
        except FileExistsError:
            return
        won.append(number)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(won) == 1
    assert path.read_bytes() == str(won[0]).encode() * 1000
    assert names(tmp_path) == ["file"]


DYING = """
import os, sys
from pathlib import Path
from harness.util.files import write_atomically
write_atomically(Path(sys.argv[1]), lambda stream: os.kill(os.getpid(), 9))
"""


def test_what_a_killed_process_left_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-c", DYING, str(tmp_path / "file")], check=False)
    (left,) = names(tmp_path)
    machine = left.split(".")[-2].partition("-")[0]
    in_use = f".other.{machine}-{os.getpid()}-00000000.tmp"
    elsewhere = ".other.00000000-1-00000000.tmp"
    for name in (in_use, elsewhere, ".mine.tmp"):
        (tmp_path / name).touch()
    write_atomically(tmp_path / "file", b"text")
    assert names(tmp_path) == sorted([in_use, elsewhere, ".mine.tmp", "file"])


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    sync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        events.append("sync folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "sync file")
        sync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        events.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_atomically(tmp_path / "file", b"text")
    assert events == ["sync file", "rename", "sync folder"]


def test_an_unwritable_folder_is_known_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable(tmp_path / "not" / "yet")
    assert names(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="is not a folder"):
        check_writable(tmp_path / "file" / "results")
    # tests may run as root, whom no permission stops
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(StorageError, match="no permission"):
        check_writable(tmp_path / "results")


def test_a_process_that_cannot_be_asked_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(error: type[OSError], process: int, signal: int) -> None:
        raise error

    monkeypatch.setattr(os, "kill", partial(refuse, PermissionError))
    assert files._is_alive(1)
    monkeypatch.setattr(os, "kill", partial(refuse, ProcessLookupError))
    assert not files._is_alive(1)
