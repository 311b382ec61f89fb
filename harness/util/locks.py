"""One process at a time: a lock that a file stands for, and that whoever holds it gives up however it ends."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.errors import StorageError, system_error
from harness.util.text import printable

__all__ = ["alone"]

_LONGEST = 20
"""Bytes of a process number."""

_SECONDS_BETWEEN_TRIES = 0.1


@contextmanager
def alone(
    path: Path, *, waiting: Callable[[str], object], meanwhile: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Wait until no other process is within it for the same ``path``; the file is there only meanwhile.

    The system gives the lock up when its owner ends, so that a killed process blocks nobody. Where a file system or
    machine has no such locks, nothing is waited for.

    Args:
        waiting: called once with the process number of the owner, if it has to be waited for.
        meanwhile: called again and again while it is waited for.

    Raises:
        StorageError: the file cannot be made.
    """
    descriptor = _acquired(path, waiting, meanwhile)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # before it is given up, so that whoever waits for it sees that it is another file now
        os.close(descriptor)


def _acquired(path: Path, waiting: Callable[[str], object], meanwhile: Callable[[], object]) -> int:
    told = False
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = _opened(path)
        except OSError as error:
            raise StorageError(f"cannot write {path.parent}: {system_error(error)}; choose another folder") from error
        try:
            while not _lock(descriptor):
                if not told:
                    waiting(printable(os.read(descriptor, _LONGEST).decode("ascii", "replace")).strip() or "unknown")
                told = True
                meanwhile()
                time.sleep(_SECONDS_BETWEEN_TRIES)
            if _is_still(descriptor, path):
                if _is_a_lock(descriptor):
                    with suppress(OSError):  # a full disk is no reason not to have the lock
                        os.truncate(descriptor, 0)
                        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _opened(path: Path) -> int:
    """The file, made if it is not there; never what a link leads to."""
    flags = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY | flags)  # another user's, which can be waited for all the same


def _is_a_lock(descriptor: int) -> bool:
    """Whether a file may be written: one that has no other name and holds no more than a process number."""
    about = os.fstat(descriptor)
    return stat.S_ISREG(about.st_mode) and about.st_nlink == 1 and about.st_size <= _LONGEST


def _lock(descriptor: int) -> bool:
    """Whether the lock was taken, or there are no locks here."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether the file that was opened is the one at ``path``; its owner may have removed it meanwhile."""
    with suppress(OSError):
        opened, there = os.fstat(descriptor), path.stat()
        return (opened.st_dev, opened.st_ino) == (there.st_dev, there.st_ino)
    return False
