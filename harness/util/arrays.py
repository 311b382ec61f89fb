"""Archives of NumPy arrays (``.npz``) from strangers: nothing is allocated that the file does not hold."""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

__all__ = ["read_arrays"]

_LARGEST_DIRECTORY = 16 << 20
_END = struct.Struct("<4s4H2LH")
_HEADERS: dict[tuple[int, int], Callable[[IO[bytes]], Any]] = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}
_LARGEST_HEADER = 1 << 16
# Zeros compress a thousandfold, images of the real world tenfold.
_SMALL, _MOST_EXPANDED = 64 << 20, 200

_DAMAGE = (
    OSError, EOFError, KeyError, TypeError, AttributeError, IndexError, NotImplementedError, RuntimeError, SyntaxError,
    MemoryError, tokenize.TokenError, zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip


def read_arrays(stream: IO[bytes], wanted: Collection[str]) -> tuple[dict[str, np.ndarray[Any, Any]], tuple[str, ...]]:
    """Those of the wanted arrays that the archive holds, and the names of all that it holds.

    Raises:
        ValueError: it is damaged, holds an array twice or Python objects, or one whose declared size it does not have.
    """
    try:
        _check_directory(stream)
        with zipfile.ZipFile(stream) as archive:
            infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if len(infos) < len(archive.infolist()):
                raise ValueError("it holds the same name twice")
            return {name: _array(archive, infos[name]) for name in wanted if name in infos}, tuple(infos)
    except _DAMAGE as error:
        raise ValueError(f"it is no archive of arrays ({' '.join(str(error).split())})") from error


def _check_directory(stream: IO[bytes]) -> None:
    """That the table of contents is small, before `zipfile` reads all of it."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - _END.size))
    tail = stream.read(_END.size)
    if tail[:4] == b"PK\5\6":
        *_, length, _, _ = _END.unpack(tail)
        # all ones stand for a length that is said elsewhere, as of more than 65,535 arrays
        if length > _LARGEST_DIRECTORY:
            raise ValueError("its table of contents is larger than that of any archive of arrays")
    stream.seek(0)


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray[Any, Any]:
    name, size = info.filename, info.file_size
    if size > max(_SMALL, _MOST_EXPANDED * info.compress_size):
        raise ValueError(f"{name} expands to {size:,} bytes from {info.compress_size:,}, as no images or labels do")
    with archive.open(info) as stream:
        head = io.BytesIO(stream.read(min(size, _LARGEST_HEADER)))
        version = npy.read_magic(head)
        if version not in _HEADERS:
            raise ValueError(f"{name} has the array format {version}")
        shape, fortran, dtype = _HEADERS[version](head)
        if dtype.hasobject:
            raise ValueError(f"{name} holds Python objects")
        if min(shape, default=1) < 0 or math.prod(map(int, shape)) * dtype.itemsize != size - head.tell():
            raise ValueError(f"{name} has another size than is declared (shape {list(shape)} of {dtype})")
        content = bytearray(head.read()) + stream.read()
    values = np.frombuffer(content, dtype=dtype) if content else np.empty(0, dtype)
    array = values.reshape(shape, order="F" if fortran else "C")
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))
