"""What the data sets that torchvision reads have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harness.datasets._base import About, Member, Request
from harness.datasets._check import to_nchw
from harness.errors import InvalidInput

__all__ = ["member"]

_LARGEST = 1 << 28
"""Bytes of a file; those of CIFAR-100 have 155 million."""


def member(about: About, name: str, *, folder: str) -> Member:
    """The data set of torchvision's class ``name`` (MNIST, CIFAR10, ...), as it lies in its folder.

    Args:
        folder: where that class keeps its files.
    """

    def files(request: Request) -> list[Path]:
        return [request.data_dir / folder]

    return Member(about, _reader(name, folder), files=files)


def _reader(name: str, folder: str) -> Callable[[Request], tuple[np.ndarray, np.ndarray, int]]:
    def read(request: Request) -> tuple[np.ndarray, np.ndarray, int]:
        from torchvision import datasets

        factory: Any = getattr(datasets, name)
        _check_files(request.data_dir / folder)
        try:
            stored = factory(request.data_dir, train=request.split == "train", download=request.download)
        # a file that is cut short or says something else of itself is an assertion that fails, a missing key, ...
        except (OSError, RuntimeError, ValueError, AssertionError, LookupError, TypeError) as error:
            if request.download:
                raise InvalidInput(
                    f"downloading {name} into {request.data_dir} failed ({' '.join(str(error).split())}); "
                    "try again, or put the files there yourself"
                ) from error
            raise InvalidInput(
                f"{name} was not found (or is damaged) in {request.data_dir.absolute()}: "
                "name its folder with --data-dir, or pass --download to fetch it"
            ) from error
        x, y = np.asarray(stored.data), np.asarray(stored.targets)
        return to_nchw(x[: request.limit], name), y[: request.limit], len(y)

    return read


def _check_files(folder: Path) -> None:
    """Refuse what torchvision would wait for, or read whole before it looks at it."""
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and not path.is_file():
            raise InvalidInput(f"{path} is no plain file")
        if path.is_file() and path.stat().st_size > _LARGEST:
            raise InvalidInput(f"{path} is larger than any file of this data set: {path.stat().st_size:,} bytes")
