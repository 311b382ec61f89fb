"""Images written one batch after another to a file without a name."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from harness.errors import StorageError
from harness.util.images import Descriptor, StoredImages, as_floating, blocks

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Spool"]


class Spool:
    """Images written one batch after another to a file without a name, which is gone when nobody uses it any more.

    Bytes stay bytes, and so do floating point numbers as long as all of them are such of 8-bit images.

    Args:
        folder: where there is room for them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._descriptor: Descriptor | None = None
        self._one: tuple[int, ...] = ()
        self._count = 0
        self._dtype: torch.dtype | None = None
        self._stored = np.dtype(np.uint8)

    def append(self, images: Tensor) -> None:
        """Add ``[m, ...]``.

        Raises:
            ValueError: they have another shape or type than those before.
            StorageError: they cannot be written.
        """
        import torch

        bytes_given = images.dtype == torch.uint8
        dtype = torch.float32 if bytes_given else images.dtype
        if self._dtype not in (None, dtype) or self._one not in ((), tuple(images.shape[1:])):
            raise ValueError(f"images of {dtype} {list(images.shape[1:])} after {self._dtype} {list(self._one)}")
        self._one, self._dtype = tuple(images.shape[1:]), dtype
        levels = images if bytes_given else _levels(images)
        if levels is None and self._stored == np.uint8:
            self._widen(images.numpy().dtype)
        as_stored = images if levels is None or self._stored != np.uint8 else levels
        if bytes_given and self._stored != np.uint8:
            as_stored = as_floating(images)
        self._write(np.ascontiguousarray(as_stored.numpy()))
        self._count += len(images)

    def images(self) -> StoredImages:
        """All that were added."""
        if self._file is None or self._descriptor is None or self._dtype is None:
            raise ValueError("no images were added")
        self._file.flush()
        rows = np.arange(self._count, dtype=np.int64)
        return StoredImages(self._descriptor, "a temporary file", 0, self._one, self._stored, rows, self._dtype)

    def _write(self, array: np.ndarray[Any, Any]) -> None:
        try:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 (closed with the last user)
                self._descriptor = Descriptor(self._file)
            self._file.write(array.data)
        except OSError as error:
            raise StorageError(f"cannot write images to {self._folder}: {error.strerror}; make room there") from error

    def _widen(self, stored: np.dtype[Any]) -> None:
        """Write what is there anew as floating point numbers."""
        if self._count:
            before, count, self._file = self.images(), self._count, None
            for part in blocks(before):
                self._write(np.ascontiguousarray(part.numpy()))
            self._count = count
        self._stored = stored


def _levels(images: Tensor) -> Tensor | None:
    """The 8-bit values that float images stand for; None if they stand for others."""
    import torch

    if images.dtype != torch.float32:
        return None
    levels = (images * 255).round().clamp(0, 255).to(torch.uint8)
    # of bits, as -0.0 equals 0.0
    return levels if torch.equal(as_floating(levels).view(torch.int32), images.contiguous().view(torch.int32)) else None
