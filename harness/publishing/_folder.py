"""The folder that something is published in: looked at before anything expensive, and left as it was on failure."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from harness.errors import InvalidInput, StorageError, system_error
from harness.util.files import check_writable, write_together

__all__ = ["check_free", "write"]


def check_free(folder: str | Path) -> Path:
    """``folder`` as a path, if it is new or empty and can be written; creates nothing.

    Raises:
        InvalidInput: there is something in it, or it is no folder.
        StorageError: it can be neither read nor written.
    """
    try:
        target = Path(folder).expanduser()
        if target.exists() and not target.is_dir():
            raise InvalidInput(f"{target} is not a folder: name a new or empty one with --to")
        if target.is_dir() and any(target.iterdir()):
            raise InvalidInput(f"the folder {target} is not empty: name another with --to, or empty it")
        check_writable(target, "--to")
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, no such user, a NUL in the name
        reason = system_error(error) if isinstance(error, OSError) else str(error)
        raise StorageError(f"cannot write to the folder {folder}: {reason}; name another with --to") from error
    return target


def write(target: Path, files: Mapping[str, bytes]) -> None:
    """Write files by their paths below ``target``, all or none; on failure no folder stays that was not there.

    Raises:
        StorageError: one of them cannot be written.
    """
    paths = {target / file: content for file, content in files.items()}
    missing = {folder for path in paths for folder in path.parents if not folder.exists()}
    try:
        write_together(paths)
    except BaseException:
        for folder in sorted(missing, key=lambda found: len(found.parts), reverse=True):
            with suppress(OSError):  # it was not made, or somebody else has put something into it
                folder.rmdir()
        raise
