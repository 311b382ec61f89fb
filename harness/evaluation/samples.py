"""Images and labels in whatever form Python holds them, as the samples of an evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from harness.datasets import Dataset
from harness.datasets import samples_sha256 as hashed
from harness.engine.types import Index
from harness.errors import HarnessError, InvalidInput
from harness.results.record import DatasetRecord
from harness.util import paths
from harness.util.images import Images, StoredImages, as_floating, blocks, fits_into_memory
from harness.util.spool import Spool

__all__ = ["Samples", "checked_samples", "gathered"]

_BATCH = 256


@dataclass(frozen=True, eq=False)
class Samples:
    """What is evaluated.

    Attributes:
        x: ``[n, ...]`` in [0, 1]; read from a file where they are many. y: int64 ``[n]``.
        index: int64 ``[n]``, positions in the data set.
    """

    x: Images
    y: Tensor
    index: Index
    record: DatasetRecord


def gathered(x: Any, y: Any = None) -> Samples:
    """Samples from images and labels, or from something that has both.

    Args:
        x: a tensor or array ``[n, ...]``, floating point in [0, 1] or bytes; or, without ``y``, a
            `harness.datasets.Dataset`, a data set of torch or torchvision, a `DataLoader`, or any iterable of batches.
        y: classes ``[n]``: a tensor, an array or a list of whole numbers.

    Raises:
        InvalidInput: they cannot be used; the sentence says why.
    """
    if isinstance(x, Dataset):
        _refuse_labels(y, "a harness data set")
        return _of_dataset(x)
    if y is None:
        x, y = _batches(x)
    images, labels = checked_samples(
        x if isinstance(x, StoredImages) else as_floating(_tensor("x", x)), _tensor("y", y)
    )
    record = DatasetRecord(
        name="samples",
        split="given",
        size=len(images),
        classes=int(labels.max()) + 1,
        shape=list(images.shape[1:]),
        sha256=hashed(images, labels),
    )
    return Samples(images, labels, np.arange(len(images), dtype=np.int64), record)


def _of_dataset(dataset: Dataset) -> Samples:
    record = DatasetRecord(
        name=dataset.name,
        split=dataset.split,
        size=dataset.size,
        classes=len(dataset.classes),
        shape=list(dataset.shape),
        sha256=dataset.sha256,
    )
    return Samples(dataset.x, dataset.y, dataset.indices.numpy().astype(np.int64), record)


def _refuse_labels(y: Any, kind: str) -> None:
    if y is not None:
        raise InvalidInput(f"{kind} brings its own labels: leave y out")


def _batches(source: Any) -> tuple[Images, Tensor]:
    """All images and labels of a source of batches; many images go to a file on the way."""
    if isinstance(source, Tensor | np.ndarray):
        raise InvalidInput("y is missing: give the true class of every image")
    if (isinstance(source, TorchDataset) and not isinstance(source, Iterable)) or hasattr(source, "__getitem__"):
        if isinstance(source, tuple | list) and len(source) == 2:
            raise InvalidInput("x and y are two arguments, got them as one")
        source = DataLoader(source, batch_size=_BATCH)
    if not isinstance(source, Iterable):
        raise InvalidInput(f"x must be images, a data set or a loader of batches, got a {type(source).__name__}")
    images: list[Tensor] = []
    labels: list[Tensor] = []
    spool, count = None, 0
    try:
        for batch in source:
            images.append(_tensor("x", batch[0]))
            labels.append(_tensor("y", batch[1]))
            count += len(labels[-1])
            if spool is None and not fits_into_memory((count, *images[0].shape[1:])):
                spool = Spool(paths.cache_root())
            if spool is not None:
                for part in images:
                    spool.append(part.detach().cpu())
                images.clear()
        return torch.cat(images) if spool is None else spool.images(), torch.cat(labels)
    except HarnessError:
        raise
    except Exception as error:  # whatever somebody's data set raises
        kind = type(source.dataset).__name__ if isinstance(source, DataLoader) else type(source).__name__
        raise InvalidInput(
            f"{kind} must give pairs of an image (as a tensor) and its class, all of one shape: "
            f"{' '.join(f'{type(error).__name__}: {error}'.split())}"
        ) from error


def _tensor(name: str, values: Any) -> Tensor:
    if isinstance(values, Tensor):
        tensor = values
    else:
        try:
            tensor = torch.from_numpy(np.ascontiguousarray(values))
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"{name} must be a tensor or an array of numbers, got a {type(values).__name__} ({error})"
            ) from error
    return tensor


def checked_samples(x: Tensor | StoredImages, y: Tensor) -> tuple[Images, Tensor]:
    """Samples on the CPU.

    Raises:
        InvalidInput: they cannot be used; the sentence says why.
    """
    if not isinstance(x, Tensor | StoredImages) or not isinstance(y, Tensor):
        raise InvalidInput(f"x and y must be tensors, got {type(x).__name__} and {type(y).__name__}")
    if not x.dtype.is_floating_point:
        raise InvalidInput(
            f"x must be floating point in [0, 1], got {x.dtype}; for bytes pass uint8, or x.float() / 255"
        )
    if len(x.shape) < 2:
        raise InvalidInput(f"x must be a batch [n, ...], got shape {list(x.shape)}; for one image pass x[None]")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise InvalidInput(f"y must hold integer classes, got {y.dtype}")
    if y.dim() != 1 or len(y) != len(x):
        raise InvalidInput(f"y must be one class per sample, [{len(x)}], got shape {list(y.shape)}")
    if len(x) == 0:
        raise InvalidInput("there are no samples to evaluate (n = 0)")
    if int(y.min()) < 0:
        raise InvalidInput(f"classes must not be negative, got {int(y.min())} for sample {int(y.argmin())}")
    y = y.detach().to("cpu", torch.int64)
    images: Images = x.detach().to("cpu") if isinstance(x, Tensor) else x
    # a NaN fails the comparison as well
    lawful = [((flat >= 0) & (flat <= 1)).all(dim=1) for flat in (part.flatten(1) for part in blocks(images))]
    bad = (~torch.cat(lawful)).nonzero().squeeze(1)
    if len(bad):
        worst = int(bad[0])
        low, high = float(images[worst].min()), float(images[worst].max())
        raise InvalidInput(
            f"x must lie in [0, 1], but sample {worst} ranges from {low:.6g} to {high:.6g} ({len(bad)} such samples); "
            "normalisation belongs inside the model"
        )
    return images, y
