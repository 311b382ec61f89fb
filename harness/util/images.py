"""Images that lie in a file and are read as they are needed, for data sets that do not fit into memory.

They are read, not mapped: the pages of a mapped file count as memory of the process that has touched them.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from harness.errors import StorageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "IN_MEMORY",
    "Descriptor",
    "Images",
    "StoredImages",
    "as_floating",
    "blocks",
    "cast",
    "fits_into_memory",
    "positions",
    "take",
]

IN_MEMORY = 1 << 26
"""Data sets of more numbers than this (all of their images together) stay in a file: 256 MiB in float32."""

_BLOCK = 1 << 22

Rows = np.ndarray[Any, np.dtype[np.int64]]


class Images(Protocol):
    """Images ``[n, ...]`` in [0, 1]: a tensor, or something that reads those rows of it that it is asked for.

    Indexing with a slice or with positions gives a tensor of these images, with one number that image; ``images[:]``
    is all of them.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Images in a file.

    Attributes:
        descriptor: the open file. path: what errors call it.
        offset: where its first image begins. one: shape of an image.
        stored: uint8, which stands for 0 to 1 in steps of 1/255, or a floating type.
        rows: int64 ``[n]``, which of its images these are.
        dtype: what they are read as.
    """

    descriptor: Descriptor
    path: str
    offset: int
    one: tuple[int, ...]
    stored: np.dtype[Any]
    rows: Rows
    dtype: torch.dtype

    @classmethod
    def open(cls, path: Path) -> StoredImages:
        """The images of an ``.npy`` file of bytes ``[n, C, H, W]``.

        Raises:
            StorageError: it is no such file, or it is cut short.
        """
        import torch

        try:
            file = path.open("rb")
            np.lib.format.read_magic(file)
            shape, _, stored = np.lib.format.read_array_header_1_0(file)
            offset, size = file.tell(), os.fstat(file.fileno()).st_size
        except (OSError, ValueError) as error:
            raise StorageError(f"{path} is no file of images ({error}): remove it, and it is made anew") from error
        if stored != np.uint8 or len(shape) < 2 or size != offset + int(np.prod(shape, dtype=np.int64)):
            raise StorageError(f"{path} is damaged or cut short: remove it, and it is made anew")
        rows = np.arange(shape[0], dtype=np.int64)
        return cls(Descriptor(file), str(path), offset, tuple(shape[1:]), stored, rows, torch.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, ...)``."""
        return (len(self.rows), *self.one)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any, /) -> Tensor:
        import torch

        chosen = self.rows[positions(rows)]
        raw = np.empty((np.size(chosen), *self.one), self.stored)
        size = int(np.prod(self.one, dtype=np.int64)) * self.stored.itemsize
        for image, row in zip(raw, np.atleast_1d(chosen).tolist(), strict=True):
            self.descriptor.read(memoryview(image).cast("B"), self.offset + row * size, self.path)
        images = as_floating(torch.from_numpy(raw)).to(self.dtype)
        return images if np.ndim(chosen) else images[0]

    def take(self, rows: Any) -> StoredImages:
        """Some of the images, without reading them."""
        return replace(self, rows=self.rows[positions(rows)])

    def cast(self, dtype: torch.dtype) -> StoredImages:
        """The same images, to be read as another type."""
        return replace(self, dtype=dtype)


def as_floating(images: Tensor) -> Tensor:
    """Bytes as float32 from 0 to 1 in steps of 1/255; floating point numbers as they are."""
    import torch

    # the same division as everywhere else in this field, so that equal images are equal bit for bit
    return images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images


def take(images: Images, rows: Any) -> Images:
    """Some of the images: those of a tensor, or of a file without reading them."""
    return images.take(rows) if isinstance(images, StoredImages) else images[rows]


def cast(images: Images, dtype: torch.dtype) -> Images:
    """The images as another floating type."""
    if isinstance(images, StoredImages):
        return images.cast(dtype)
    converted: Tensor = images[:].to(dtype)
    return converted


def blocks(images: Images) -> Iterator[Tensor]:
    """All images, some at a time, in order."""
    size = max(1, _BLOCK // max(1, int(np.prod(images.shape[1:], dtype=np.int64))))
    for begin in range(0, len(images), size):
        yield images[begin : begin + size]


def fits_into_memory(shape: tuple[int, ...]) -> bool:
    """Whether images ``[n, ...]`` are few enough to be held in memory, or cannot be read in parts on this system."""
    return int(np.prod(shape, dtype=np.int64)) <= IN_MEMORY or not hasattr(os, "preadv")


class Descriptor:
    """An open file, closed when nobody uses it any more. Reading moves no position, so that processes may share it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._number = file.fileno()
        weakref.finalize(self, file.close)

    def read(self, buffer: memoryview, begin: int, name: str) -> None:
        done = 0
        while done < len(buffer):
            count = os.preadv(self._number, [buffer[done:]], begin + done)
            if count == 0:
                raise StorageError(f"{name} was cut short while it was read: evaluate again")
            done += count


def positions(rows: Any) -> Any:
    """What numpy takes for rows, from a slice, numbers or a tensor."""
    if isinstance(rows, slice | int | np.integer):
        return rows
    positions = np.asarray(rows)
    return positions if positions.dtype == bool or positions.size else positions.astype(np.int64)
