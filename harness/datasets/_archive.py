"""Reading ``.npz`` archives from strangers: never a pickle, and every defect is one sentence."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.errors import InvalidInput
from harness.util.arrays import read_arrays
from harness.util.reading import open_bounded
from harness.util.text import printable

__all__ = ["read_archive"]

_LARGEST = 1 << 40


def read_archive(
    path: Path, *, required: Sequence[str], optional: Sequence[str] = (), hint: str = ""
) -> dict[str, np.ndarray]:
    """The named arrays of an ``.npz`` file; ``hint`` is added to the error when one is missing.

    Raises:
        InvalidInput: no such file, not an archive, damaged, an array missing, or Python objects in it.
    """
    if not path.is_file():
        raise InvalidInput(f"no such file: {path.absolute()}")
    try:
        with open_bounded(path, _LARGEST) as (stream, _):
            if not zipfile.is_zipfile(stream):
                raise InvalidInput(f"{path} is not an .npz archive, or it is cut short; write it with numpy.savez")
            arrays, held = read_arrays(stream, (*required, *optional))
    except (OSError, ValueError) as error:
        if "Python objects" in str(error):
            raise InvalidInput(
                f"{path} holds Python objects, which could run code when opened; store plain arrays of numbers or text"
            ) from error
        raise InvalidInput(f"{path} is damaged or cut short ({printable(error, longest=300)})") from error
    missing = [name for name in required if name not in arrays]
    if missing:
        raise InvalidInput(
            f"{path}: expected the arrays {', '.join(required)}, missing {', '.join(missing)} "
            f"(it holds {printable(', '.join(held) or 'nothing')}): store them under these names, as in "
            f"numpy.savez(FILE, {', '.join(f'{name}=...' for name in required)}){hint}"
        )
    return arrays
