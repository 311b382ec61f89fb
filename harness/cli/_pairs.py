"""The data set on which two checkpoints are compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import InvalidInput

if TYPE_CHECKING:
    from harness.checkpoints import Checkpoint
    from harness.datasets import Dataset

__all__ = ["data_for"]


def data_for(
    *points: Checkpoint, dataset: str | None, data_dir: Path | None, download: bool, limit: int | None, otherwise: str
) -> Dataset:
    """The data set asked for, else that of the first checkpoint's manifest.

    Args:
        points: checkpoints whose images and classes it must fit.
        otherwise: ends the error where it does not, and says what to do.

    Raises:
        InvalidInput: no data set is named, or it has other images or another number of classes.
    """
    from harness import datasets

    wanted = dataset or points[0].manifest.dataset
    if wanted is None:
        raise InvalidInput(f"the manifest of {points[0].name} names no data set: say which with --dataset")
    data = datasets.load(wanted, data_dir=data_dir, download=download, limit=limit)
    for point in points:
        there, needed = (data.shape, len(data.classes)), (tuple(point.manifest.shape), point.manifest.classes)
        if there != needed:
            raise InvalidInput(
                f"{point.name} takes images of shape {list(needed[0])} in {needed[1]} classes, the data set "
                f"{data.name} has {list(there[0])} in {there[1]}: {otherwise}"
            )
    return data
