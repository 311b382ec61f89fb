"""What the data sets that torchvision reads have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from harness.datasets._base import Request
from harness.datasets._check import to_nchw
from harness.errors import InvalidInput

__all__ = ["reader"]


def reader(name: str) -> Callable[[Request], tuple[np.ndarray, np.ndarray, int]]:
    """A function that reads torchvision's class ``name`` (MNIST, CIFAR10, ...) as it lies in its folder."""

    def read(request: Request) -> tuple[np.ndarray, np.ndarray, int]:
        from torchvision import datasets

        factory: Any = getattr(datasets, name)
        try:
            stored = factory(request.data_dir, train=request.split == "train", download=request.download)
        except (OSError, RuntimeError) as error:
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
