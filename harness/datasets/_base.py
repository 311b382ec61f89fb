"""What a data set is once it is loaded, and what is known of one before it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.datasets._form import AS_THEY_ARE, Form
from harness.errors import InvalidInput
from harness.threat import ThreatModel
from harness.util.images import Images, StoredImages, as_floating, blocks

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SPLITS", "About", "Dataset", "Member", "Request", "samples_sha256"]

SPLITS = ("train", "test")


def samples_sha256(x: Images, y: Tensor) -> str:
    """Hash of images and labels as they are evaluated, in their order; equal ones have the same, wherever from."""
    import torch

    digest = hashlib.sha256(f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}int64".encode())
    for part in blocks(x):
        # numpy has no bfloat16
        images = part.view(torch.int16).numpy() if x.dtype is torch.bfloat16 else part.numpy()
        digest.update(np.ascontiguousarray(images, dtype=images.dtype.newbyteorder("<")).data)
    digest.update(np.ascontiguousarray(y.numpy(), dtype="<i8").data)
    return digest.hexdigest()


@dataclass(frozen=True)
class About:
    """What is known of a data set without reading its images.

    Attributes:
        classes: class names, in the order of the labels.
        shape: C, H, W.
        threats: standard threat models, the default first; empty where there is no standard.
    """

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    threats: tuple[ThreatModel, ...] = ()


@dataclass(frozen=True)
class Request:
    """What to read: which split, from where, whether it may be fetched, how many images at most, in which form."""

    split: str
    data_dir: Path
    download: bool
    limit: int | None
    form: Form = AS_THEY_ARE


@dataclass(frozen=True)
class Member:
    """A registered data set: the facts about it, and a function that reads its images.

    ``read`` returns images ``[n, ...]`` (uint8, or float in [0, 1]) and labels ``[n]``, already cut to
    the request's limit, and the size of the whole split. ``takes_form``: it reads them in the request's form.
    ``files`` says from which files a request is answered, all that decide the answer (folders among them stand for all
    that is in them); None where that is not known.
    """

    about: About
    read: Callable[[Request], tuple[np.ndarray | StoredImages, np.ndarray, int]]
    takes_form: bool = False
    files: Callable[[Request], Sequence[Path]] | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels, ready to be evaluated.

    Attributes:
        name: what results call it.
        split: "train", "test" or "val".
        x: float32 ``[n, C, H, W]`` in [0, 1]: a tensor, or where they are many a `harness.util.images.StoredImages`,
            which reads the rows that it is asked for; ``x[:]`` is all of them as a tensor.
        y: int64 ``[n]``.
        classes: class names, in the order of the labels.
        threats: standard threat models, the default first; empty where the caller must say.
        size: images in the whole split; more than ``len(self)`` where a limit cut it.
        indices: position of each image in the split, int64 ``[n]``.
    """

    name: str
    split: str
    x: Images
    y: Tensor
    classes: tuple[str, ...]
    threats: tuple[ThreatModel, ...]
    size: int
    indices: Tensor

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        channels, height, width = self.x.shape[1:]
        return channels, height, width

    def threat(self, asked: str | None = None) -> ThreatModel:
        """The threat model that was asked for, or else the data set's standard one.

        Raises:
            InvalidInput: a text that is none, or nothing was asked for and there is no standard.
        """
        if asked is not None:
            return ThreatModel.parse(asked)
        if not self.threats:
            raise InvalidInput(f"{self.name} has no standard threat model: give one, such as Linf:8/255")
        return self.threats[0]

    @cached_property
    def sha256(self) -> str:
        """Hash of the images and labels as they are evaluated, in their order."""
        return samples_sha256(self.x, self.y)

    @classmethod
    def of(
        cls, name: str, split: str, x: np.ndarray | StoredImages, y: np.ndarray, *, about: About, size: int
    ) -> Dataset:
        """From images and labels that were checked: images NCHW, uint8 or float in [0, 1]."""
        import torch

        images = (
            x
            if isinstance(x, StoredImages)
            else as_floating(torch.from_numpy(np.ascontiguousarray(x))).to(torch.float32)
        )
        labels = torch.from_numpy(np.ascontiguousarray(y).astype(np.int64))
        return cls(name, split, images, labels, about.classes, about.threats, size, torch.arange(len(labels)))
