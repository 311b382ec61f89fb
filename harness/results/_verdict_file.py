"""The file of per-sample verdicts: NumPy arrays in a ZIP archive, read without trusting what it says of its size."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib import format as npy

from harness.results.record import Verdicts

__all__ = ["arrays", "largest", "packed", "unpacked"]

_TYPES = {field.name: np.dtype("?" if field.name == "robust" else "<i8") for field in fields(Verdicts)}
_HEADER = 1024
_FIXED = 10
"""Bytes of an array's header before its description; the last two say how long that is."""


def largest(n: int) -> int:
    """The most bytes that a file of ``n`` samples may have."""
    return len(_TYPES) * (8 * n + 2 * _HEADER) + _HEADER


def packed(verdicts: Verdicts) -> bytes:
    """The content of the file; the same bytes for the same verdicts."""
    stream = io.BytesIO()
    typed = {name: np.asarray(array).astype(_TYPES[name]) for name, array in verdicts.arrays().items()}
    np.savez_compressed(stream, **typed)  # type: ignore[arg-type]
    return stream.getvalue()


def unpacked(content: bytes, n: int) -> Verdicts:
    """Verdicts of ``n`` samples.

    Raises:
        ValueError: the content is anything else; no more is allocated than such verdicts need.
    """
    return Verdicts(**arrays(content, n, tuple(_TYPES)))


def arrays(content: bytes, n: int, names: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Some of the arrays of the verdicts, by name.

    Raises:
        ValueError: as `unpacked`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = sorted(info.filename for info in archive.infolist())
            if found != sorted(f"{name}.npy" for name in _TYPES):
                raise ValueError(f"expected the arrays {', '.join(_TYPES)}")
            return {name: _array(archive, name, n) for name in names}
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, OSError, OverflowError) as error:
        raise ValueError(f"they are no archive of arrays ({error})") from error


def _array(archive: zipfile.ZipFile, name: str, n: int) -> np.ndarray[Any, Any]:
    wanted = _TYPES[name]
    size = n * wanted.itemsize
    with archive.open(f"{name}.npy") as stream:
        content = stream.read(_HEADER + size + 1)
    begins = _FIXED + int.from_bytes(content[_FIXED - 2 : _FIXED], "little")
    version, shape, dtype = _described(content[:begins])
    if version != (1, 0):
        raise ValueError(f"{name} has the array format {version}")
    if shape != (n,) or dtype != wanted:
        raise ValueError(f"{name} has shape {list(shape)} and type {dtype}, expected [{n}] and {wanted}")
    values = content[begins:]
    if len(values) != size:
        raise ValueError(f"{name} has {len(values):,} bytes, expected {size:,}")
    return np.frombuffer(values, dtype=wanted)


@lru_cache(maxsize=64)  # thousands of files have the same few headers
def _described(head: bytes) -> tuple[tuple[int, int], tuple[int, ...], np.dtype[Any]]:
    """The format's version, the shape and the type that the header of an array states."""
    stream = io.BytesIO(head)
    version = npy.read_magic(stream)
    if version != (1, 0):
        return version, (), np.dtype("?")
    shape, _, dtype = npy.read_array_header_1_0(stream)
    return version, shape, dtype
