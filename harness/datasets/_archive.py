"""Reading ``.npz`` archives from strangers: never a pickle, and every defect is one sentence."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.errors import InvalidInput

__all__ = ["read_archive"]

_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


def read_archive(
    path: Path, *, required: Sequence[str], optional: Sequence[str] = (), hint: str = ""
) -> dict[str, np.ndarray]:
    """The named arrays of an ``.npz`` file; ``hint`` is added to the error when one is missing.

    Raises:
        InvalidInput: no such file, not an archive, damaged, an array missing, or Python objects in it.
    """
    if not path.is_file():
        raise InvalidInput(f"no such file: {path.absolute()}")
    if not zipfile.is_zipfile(path):
        raise InvalidInput(f"{path} is not an .npz archive, or it is cut short; write it with numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in required if name not in archive.files]
            if missing:
                raise InvalidInput(
                    f"{path}: expected the arrays {', '.join(required)}, missing {', '.join(missing)} "
                    f"(it holds {', '.join(archive.files) or 'nothing'}){hint}"
                )
            return {name: archive[name] for name in (*required, *optional) if name in archive.files}
    except _DAMAGE as error:
        if "allow_pickle" in str(error):
            raise InvalidInput(
                f"{path} holds Python objects, which could run code when opened; store plain arrays of numbers or text"
            ) from error
        raise InvalidInput(f"{path} is damaged or cut short ({' '.join(str(error).split())})") from error
