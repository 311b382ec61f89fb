"""Files appear whole or not at all, whatever happens to the process that writes them.

Content goes to a temporary file in the same folder, is synced to the disk and then renamed. The name of a temporary
file says which process on which machine writes it, so that those of killed processes can be told from those in use;
they are removed when the next process writes to the folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

from harness.errors import StorageError

__all__ = ["Content", "check_writable", "write_atomically", "write_together"]

Content = bytes | Callable[[IO[bytes]], object]
"""The bytes of a file, or a function that writes them to a stream."""

_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp")


def write_atomically(path: Path, content: Content, *, replace: bool = True) -> None:
    """Write a file; a reader sees the whole file or what was there before. Missing folders are made.

    Args:
        replace: an existing file. Otherwise, of several writers exactly one succeeds.

    Raises:
        StorageError: no space, no permission, or anything else that the system refuses; nothing has changed.
        FileExistsError: there is such a file, and it is not to be replaced.
    """
    with _explained(path), _temporary(path, content) as temporary:
        written = _rename(temporary, path) if replace else _rename_if_free(temporary, path)
    if not written:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write several files, all or none.

    All content is on the disk before the first file is renamed, so that a full disk changes nothing.

    Raises:
        StorageError: one of the files cannot be written.
    """
    with ExitStack() as stack:
        temporary: dict[Path, Path] = {}
        for path, content in files.items():
            stack.enter_context(_explained(path))
            temporary[path] = stack.enter_context(_temporary(path, content))
        created: list[Path] = []
        try:
            for path, file in temporary.items():
                is_new = not path.exists()
                with _explained(path):
                    _rename(file, path)
                if is_new:
                    created.append(path)
        except StorageError:
            for path in created:
                path.unlink(missing_ok=True)
            raise


def check_writable(folder: Path, option: str = "--output") -> None:
    """Find out before hours of work that ``folder`` cannot be written; creates nothing.

    Args:
        option: of the command, by which another folder is chosen.

    Raises:
        StorageError: it, or the nearest ancestor that exists, is no folder or not writable.
    """
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise StorageError(f"cannot write to {folder}: {existing} is not a folder; choose another with {option}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write to {folder}: no permission in {existing}; choose another with {option}")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Whatever the system refuses while ``path`` is written, as one sentence."""
    try:
        yield
    except FileExistsError as error:
        raise StorageError(f"cannot write {path}: {error.filename} is not a folder; choose another folder") from error
    except (OSError, RuntimeError) as error:
        # torch hides the system's error behind a RuntimeError of its own
        cause = error if isinstance(error, OSError) else error.__context__
        reason = (cause.strerror if isinstance(cause, OSError) else None) or str(error).splitlines()[0]
        raise StorageError(f"cannot write {path}: {reason}; make room or choose another folder") from error


@contextmanager
def _temporary(path: Path, content: Content) -> Iterator[Path]:
    """A complete and synced file beside ``path``, which is gone at the end unless it was renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path.parent.absolute(), os.getpid())
    temporary = path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as stream:
            if isinstance(content, bytes):
                stream.write(content)
            else:
                content(stream)
            stream.flush()
            os.fsync(stream.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _rename(temporary: Path, path: Path) -> bool:
    temporary.replace(path)
    _sync_folder(path.parent)
    return True


def _rename_if_free(temporary: Path, path: Path) -> bool:
    """Give a file its name unless that is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:
        # a file system without hard links: an empty file takes the name, so that still only one writer has it
        try:
            path.open("xb").close()
        except FileExistsError:
            return False
        try:
            return _rename(temporary, path)
        except OSError:
            path.unlink(missing_ok=True)
            raise
    _sync_folder(path.parent)
    return True


def _sync_folder(folder: Path) -> None:
    """Make a renaming durable; not every system lets folders be opened for that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@cache
def _machine() -> str:
    """Where a process number means something: this machine, and in a container this container."""
    namespace = ""
    with suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return hashlib.blake2b(f"{platform.node()} {namespace}".encode(), digest_size=4).hexdigest()


@cache
def _remove_stale(folder: Path, process: int) -> None:
    """Remove temporary files of processes that are gone, once in the life of ``process``."""
    for path in folder.glob(".*.tmp"):
        named = _TEMPORARY.fullmatch(path.name)
        if named is not None and named[1] == _machine() and not _is_alive(int(named[2])):
            with suppress(OSError):
                path.unlink()


def _is_alive(process: int) -> bool:
    if os.name != "posix":
        return True  # where signal 0 is not a question
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
