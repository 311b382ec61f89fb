"""CIFAR-10 as strongly compressed JPEG: small enough to carry, good for training at full size.

The artefacts cost a network trained on the original about eleven points of clean accuracy, so this is a
data set of its own and its figures are never CIFAR-10's. It lies in ``cifar10_jpeg_train.npz`` and
``cifar10_jpeg_test.npz``: ``jpeg`` (all files' bytes joined, uint8), ``offset`` (n+1 positions), ``y``.
The files are sorted by class; the images are taken in turn from each class.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from harness.datasets._archive import read_archive
from harness.datasets._base import About, Member, Request
from harness.datasets._check import in_turn
from harness.datasets.cifar10 import cifar10
from harness.errors import InvalidInput
from harness.util.text import printable

__all__ = ["cifar10_jpeg"]


def _file(request: Request) -> Path:
    return request.data_dir / f"cifar10_jpeg_{request.split}.npz"


def _read(request: Request) -> tuple[np.ndarray, np.ndarray, int]:
    path = _file(request)
    if not path.is_file():
        raise InvalidInput(
            f"cifar10-jpeg was not found: expected {path.absolute()}; "
            "name the folder that holds it with --data-dir (it cannot be downloaded)"
        )
    arrays = read_archive(path, required=("jpeg", "offset", "y"))
    jpeg, offset, y = arrays["jpeg"], arrays["offset"], arrays["y"]
    numbers = offset.dtype.kind in "iu" and y.dtype.kind in "iu" and y.ndim == 1
    if jpeg.dtype != np.uint8 or jpeg.ndim != 1 or not numbers or offset.shape != (len(y) + 1,):
        raise InvalidInput(
            f"{path}: expected jpeg uint8 [bytes] and offset [n+1] for y [n], got jpeg {jpeg.dtype} "
            f"{list(jpeg.shape)}, offset {offset.dtype} {list(offset.shape)}, y {list(y.shape)}"
        )
    if offset[0] < 0 or offset[-1] > len(jpeg) or bool((np.diff(offset) < 0).any()):
        raise InvalidInput(f"{path}: the offsets must ascend from 0 to the {len(jpeg)} bytes of jpeg")
    if len(y) == 0:
        raise InvalidInput(f"{path} holds no images")
    chosen = in_turn(y)[: request.limit]
    images = [_decode(jpeg[offset[i] : offset[i + 1]].tobytes(), f"{path}: image {i}") for i in chosen]
    return np.stack(images), y[chosen], len(y)


def _decode(data: bytes, where: str) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    channels, height, width = cifar10.about.shape
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            if image.size != (width, height):
                raise InvalidInput(f"{where} is {image.size[0]}x{image.size[1]}, expected {width}x{height}")
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"{where} is not a readable JPEG ({printable(error)})") from error
    return pixels.transpose(2, 0, 1)[:channels]


cifar10_jpeg = Member(
    About(cifar10.about.classes, cifar10.about.shape, cifar10.about.threats),
    _read,
    files=lambda request: [_file(request)],
)
