"""Weights and manifest are written together or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from harness.errors import CheckpointError

__all__ = ["write_together"]


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write several files; where one cannot be written, none is and what stood there stands.

    Raises:
        CheckpointError: a folder or file cannot be written.
    """
    pending = {path: path.with_name(f".{path.name}.{os.getpid()}.partial") for path in files}
    try:
        with ExitStack() as cleanup:
            for path, content in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                cleanup.callback(pending[path].unlink, missing_ok=True)
                with pending[path].open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
            _put_in_place(pending)
    except OSError as error:
        where = error.filename or next(iter(files))
        raise CheckpointError(f"cannot write {where}: {error.strerror or error}; choose another folder") from error


def _put_in_place(pending: Mapping[Path, Path]) -> None:
    fresh: list[Path] = []
    try:
        for path, partial in pending.items():
            new = not path.exists()
            partial.replace(path)
            if new:
                fresh.append(path)
    except OSError:
        for path in fresh:
            path.unlink(missing_ok=True)
        raise
