"""Which Python files may be run because something else than the user names them.

A manifest can name a file of code, and manifests travel. Such a file is run only where the user has named it on this
machine, or says so (`trusting`, ``--trust-code``); what was named is remembered by the hash of its source, so that a
changed file is another file.

The memory is a file of each user's own (`store`). Its lines count only on the machine on which they were written: a
store that comes along with a folder from elsewhere says nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from harness.errors import InvalidInput, StorageError
from harness.util import paths
from harness.util.files import write_atomically
from harness.util.reading import read_bounded
from harness.util.source_text import source_files, source_sha256
from harness.util.text import printable

__all__ = [
    "check_named_in",
    "check_trusted",
    "local_sources",
    "named_path",
    "own_name",
    "own_proof",
    "sources_sha256",
    "store",
    "trust",
    "trusting",
]

_CODE = re.compile(r"(\S+\.py):\w+(:\S+)?")
"""``FILE.py:NAME``, or a threat model of a norm of that form."""

_LARGEST_STORE = 4 << 20
_SECRET = 32
_LARGEST_SOURCE = 1 << 20
_MOST_SOURCES = 1000
_everything: ContextVar[bool] = ContextVar("trusting", default=False)
_in_this_process: dict[str, str] = {}


def local_sources(file: str | Path) -> dict[str, bytes]:
    """The text of a Python file and of the modules beside it that it imports (`harness.util.source_text`).

    Returns:
        texts by path relative to the file's folder.

    Raises:
        InvalidInput: there is no such file, one cannot be read, or there are more or larger ones than any network
            needs.
    """
    path = Path(file).expanduser()
    if not path.is_file():  # a pipe would be waited for
        raise InvalidInput(f"there is no file {file}")
    found = source_files(path)
    if len(found) > _MOST_SOURCES:
        raise InvalidInput(f"{file} imports more than {_MOST_SOURCES} files beside it")
    try:
        return {source.relative_to(path.parent).as_posix(): read_bounded(source, _LARGEST_SOURCE) for source in found}
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read {file} and what it imports: {error}") from error


def sources_sha256(file: str | Path) -> str:
    """One hash of a Python file and the modules beside it that it imports.

    Raises:
        InvalidInput: as `local_sources`.
    """
    local_sources(file)
    return source_sha256(f"{file}:any") or ""


def store() -> Path:
    """The file of what this user trusts."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    return paths.user_root() / f"trusted-code-{user}"


def own_name(name: str) -> str:
    """``name`` as nobody else can guess it: what lies under it was written by this user.

    Where no secret can be kept, the name is what it was.
    """
    return own_proof(name) or name


def own_proof(text: str) -> str | None:
    """What nobody but this user can compute from ``text``; None where no secret can be kept.

    The secret is a file of the user's settings, which nobody else may read or have written.
    """
    secret = store().with_name(f"{store().name}.key")
    try:
        with suppress(FileExistsError):
            if not secret.exists():
                write_atomically(secret, secrets.token_bytes(_SECRET), replace=False)
        about = secret.lstat()
        if hasattr(os, "getuid"):
            if about.st_uid != os.getuid() or not stat.S_ISREG(about.st_mode):
                return None
            if about.st_mode & 0o077:
                secret.chmod(0o600)
        return hmac.new(read_bounded(secret, _SECRET), text.encode(), "sha256").hexdigest()
    except (OSError, ValueError, StorageError):
        return None


def trust(sha256: str, file: str | Path) -> None:
    """Remember that the user named the code of this hash, and where it was."""
    where = str(Path(file).expanduser().resolve())
    _in_this_process[sha256] = where
    known = _stored()
    if known.get(_entry(sha256)) != where and "\n" not in where:
        lines = {**known, _entry(sha256): where}
        # where nothing can be kept, the user is asked again another time
        with suppress(StorageError):
            write_atomically(store(), "".join(f"{entry}  {path}\n" for entry, path in lines.items()).encode())


def named_path(sha256: str) -> Path | None:
    """Where the code of this hash was when the user named it on this machine; None if that never happened."""
    where = _in_this_process.get(sha256) or _stored().get(_entry(sha256))
    return None if where is None else Path(where)


def check_trusted(sha256: str, file: str | Path, named_by: str) -> None:
    """Find out before code is run that the user has not named it.

    Args:
        named_by: what names it, for the error.

    Raises:
        InvalidInput: shows path and hash.
    """
    if _everything.get():
        trust(sha256, file)
    elif named_path(sha256) is None:
        raise InvalidInput(
            f"{named_by} names code in {printable(file, longest=400)} (sha256 {sha256[:16]}...), which nobody has "
            "named on this machine, so it was not run: read it, then allow it with --trust-code"
        )


def check_named_in(table: object, named_by: str, folder: Path = Path()) -> None:
    """Find out before code is run that a file names some, anywhere, which the user has not named.

    Args:
        table: what the file holds. folder: where paths in it begin.

    Raises:
        InvalidInput: as `check_trusted`.
    """
    level = [table]
    while level:
        inner: list[object] = []
        for part in level:
            if isinstance(part, dict):
                inner += part.values()
            elif isinstance(part, list | tuple):
                inner += part
            elif isinstance(part, str) and (named := _CODE.fullmatch(part)):
                file = folder / Path(named[1]).expanduser()
                check_trusted(sources_sha256(file), file, named_by)
        level = inner


@contextmanager
def trusting() -> Iterator[None]:
    """Within it all code may be run that anything names, and is remembered."""
    token = _everything.set(True)
    try:
        yield
    finally:
        _everything.reset(token)


def _stored() -> dict[str, str]:
    path = store()
    try:
        if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
            return {}
        lines = read_bounded(path, _LARGEST_STORE).decode("utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    pairs = (line.partition("  ") for line in lines)
    return {entry: where for entry, _, where in pairs if where}


def _entry(sha256: str) -> str:
    machine = ""
    with suppress(OSError):
        machine = Path("/etc/machine-id").read_text(encoding="ascii", errors="replace").strip()
    return hashlib.sha256(f"{machine} {sha256}".encode()).hexdigest()
