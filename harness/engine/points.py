"""What an evaluation has found for every sample: its adversarial example, or else its clean image."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from harness.engine.types import Index
from harness.errors import StorageError
from harness.util import paths
from harness.util.images import Descriptor, Images, StoredImages, positions

__all__ = ["Points", "points_of"]


class Points(Protocol):
    """The points of all samples of a pool."""

    @property
    def found(self) -> Images:
        """``[n, ...]`` as they are now."""
        ...

    def replace(self, row: int, point: Tensor) -> None:
        """Note the adversarial example of a sample."""
        ...

    def saved(self, rows: Tensor) -> Tensor:
        """What `restore` needs to know of the samples ``rows``, which were replaced."""
        ...

    def fits(self, saved: Tensor) -> bool:
        """Whether `restore` can use what was saved: images may have been elsewhere then, and its file may be gone."""
        ...

    def restore(self, rows: Tensor, saved: Tensor) -> None:
        """Continue with what was saved."""
        ...


def points_of(x: Images, folder: Path | None) -> Points:
    """The points of clean images: in memory where these are, else in a file.

    Args:
        folder: where the state of the run is saved; None keeps nothing.
    """
    return _InFile(x, folder) if isinstance(x, StoredImages) else _InMemory(x[:].clone())


class _InMemory:
    def __init__(self, found: Tensor) -> None:
        self._found = found

    @property
    def found(self) -> Images:
        return self._found

    def replace(self, row: int, point: Tensor) -> None:
        self._found[row] = point

    def saved(self, rows: Tensor) -> Tensor:
        return self._found[rows]

    def fits(self, saved: Tensor) -> bool:
        return saved.dtype == self._found.dtype and saved.shape[1:] == self._found.shape[1:]

    def restore(self, rows: Tensor, saved: Tensor) -> None:
        self._found[rows] = saved


class _InFile:
    """Adversarial examples are appended to a file; what is saved of one is its place there."""

    def __init__(self, clean: StoredImages, folder: Path | None) -> None:
        self._clean = clean
        self._path = None if folder is None else folder / "points.bin"
        self._file: IO[bytes] | None = None
        self._descriptor: Descriptor | None = None
        self._place_of: dict[int, int] = {}
        self._written = 0

    @property
    def found(self) -> Images:
        if self._file is None or self._descriptor is None:
            return self._clean
        self._file.flush()
        stored = torch.empty(0, dtype=self._clean.dtype).numpy().dtype
        places = np.arange(self._written, dtype=np.int64)
        name = str(self._path or "a temporary file")
        one, dtype = self._clean.one, self._clean.dtype
        return _Replaced(
            self._clean, StoredImages(self._descriptor, name, 0, one, stored, places, dtype), dict(self._place_of)
        )

    def replace(self, row: int, point: Tensor) -> None:
        try:
            file = self._file or self._opened("w+b")
            file.write(np.ascontiguousarray(point.numpy()).data)
        except OSError as error:
            raise StorageError(f"cannot write adversarial examples: {error.strerror}; make room") from error
        self._place_of[row] = self._written
        self._written += 1

    def saved(self, rows: Tensor) -> Tensor:
        if self._file is not None:
            # before a state is written that relies on them
            self._file.flush()
            os.fsync(self._file.fileno())
        return torch.tensor([self._place_of[row] for row in rows.tolist()], dtype=torch.int64)

    def fits(self, saved: Tensor) -> bool:
        if saved.dtype != torch.int64 or saved.dim() != 1:
            return False
        if not len(saved):
            return True
        try:
            there = 0 if self._path is None else self._path.stat().st_size
        except OSError:
            return False
        return there >= (int(saved.max()) + 1) * self._bytes

    @property
    def _bytes(self) -> int:
        """Of one point."""
        return int(np.prod(self._clean.one)) * self._clean.dtype.itemsize

    def restore(self, rows: Tensor, saved: Tensor) -> None:
        if not len(rows):
            return
        self._place_of = dict(zip(rows.tolist(), saved.tolist(), strict=True))
        self._written = int(saved.max()) + 1
        file = self._opened("r+b")
        # what was found after the state was saved is found again
        file.seek(self._written * self._bytes)

    def _opened(self, mode: str) -> IO[bytes]:
        folder = paths.cache_root() if self._path is None else self._path.parent
        folder.mkdir(parents=True, exist_ok=True)
        file: IO[bytes] = tempfile.TemporaryFile(dir=folder) if self._path is None else self._path.open(mode)  # noqa: SIM115
        self._file, self._descriptor = file, Descriptor(file)
        return file


class _Replaced:
    """Images of a file, some of them replaced by those of another."""

    def __init__(self, clean: StoredImages, others: StoredImages, place_of: dict[int, int]) -> None:
        self._clean, self._others, self._place_of = clean, others, place_of

    @property
    def shape(self) -> tuple[int, ...]:
        return self._clean.shape

    @property
    def dtype(self) -> torch.dtype:
        return self._clean.dtype

    def __len__(self) -> int:
        return len(self._clean)

    def __getitem__(self, rows: Any, /) -> Tensor:
        chosen: Index = np.arange(len(self), dtype=np.int64)[positions(rows)]
        images = self._clean[np.atleast_1d(chosen)]
        place_at = {
            at: self._place_of[row] for at, row in enumerate(np.atleast_1d(chosen).tolist()) if row in self._place_of
        }
        if place_at:
            images[list(place_at)] = self._others[list(place_at.values())]
        return images if np.ndim(chosen) else images[0]
