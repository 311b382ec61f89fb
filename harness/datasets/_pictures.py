"""Image files decoded: into memory where they are few, else once into a file from which they are read as needed.

That file lies in ``$HARNESS_HOME/cache``. Its name is a hash of the images' content, their form and the version of
Pillow, which may decode a JPEG otherwise. So other images never pass for these, and it may be removed at any time.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, TYPE_CHECKING, TypeVar

import numpy as np

from harness.datasets._form import Form
from harness.errors import InvalidInput
from harness.util import paths
from harness.util.files import write_atomically
from harness.util.images import StoredImages, fits_into_memory
from harness.util.limits import MOST_PIXELS
from harness.util.text import printable

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Picture", "decoded"]

Made = TypeVar("Made")

_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow would also hand PostScript to the program that runs it."""

_GREY = {"1", "L", "LA"}
_COLOUR = {"RGB", "RGBA", "P", "CMYK", "YCbCr"}


@dataclass(frozen=True)
class Picture:
    """An image file.

    Attributes:
        name: what errors call it. read: its bytes.
    """

    name: str
    read: Callable[[], bytes]


def decoded(pictures: Sequence[Picture], form: Form) -> np.ndarray | StoredImages:
    """Images ``[n, C, H, W]``: one channel where every image is grey, else three.

    Raises:
        InvalidInput: images of several sizes, or one that cannot be read.
    """
    height, width = _pixels(pictures[0], form).shape[:2]
    if fits_into_memory((len(pictures), 3, height, width)):
        modes = [_mode(picture) for picture in pictures]
        return _shaped(np.stack(list(_of_one_size(pictures, form))), set(modes) <= _GREY)
    import PIL

    digest, grey = hashlib.sha256(repr((form, PIL.__version__)).encode()), True
    for picture in pictures:
        content = picture.read()
        digest.update(hashlib.sha256(content).digest())
        grey = _mode(Picture(picture.name, partial(bytes, content))) in _GREY and grey
    shape = (len(pictures), 1 if grey else 3, height, width)
    path = paths.cache_root() / "images" / f"{digest.hexdigest()}.npy"

    def write(stream: IO[bytes]) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for pixels in _of_one_size(pictures, form):
            stream.write(np.ascontiguousarray(_shaped(pixels[None], grey)).data)

    if not path.is_file():
        write_atomically(path, write)
    return StoredImages.open(path)


def _shaped(pixels: np.ndarray, grey: bool) -> np.ndarray:
    x = pixels.transpose(0, 3, 1, 2)
    return x[:, :1] if grey else x


def _of_one_size(pictures: Sequence[Picture], form: Form) -> Iterator[np.ndarray]:
    first = None
    for picture in pictures:
        pixels = _pixels(picture, form)
        first = pixels.shape if first is None else first
        if pixels.shape != first:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (first, pixels.shape)]
            raise InvalidInput(
                f"all images must be of one size: {pictures[0].name} is {sizes[0]} and {picture.name} is {sizes[1]}; "
                "give --resize and --crop (to 'harness import' the --shape that the model takes)"
            )
        yield pixels


def _mode(picture: Picture) -> str:
    return _opened(picture, lambda image: image.mode)


def _pixels(picture: Picture, form: Form) -> np.ndarray:
    """``[H, W, 3]``"""
    return _opened(picture, lambda image: np.asarray(form.of(image.convert("RGB"))))


def _opened(picture: Picture, use: Callable[[Image], Made]) -> Made:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(picture.read()), formats=_FORMATS) as image:
            if math.prod(image.size) > MOST_PIXELS:
                raise InvalidInput(f"{picture.name} has {image.width}x{image.height} pixels, at most {MOST_PIXELS:,}")
            if image.mode not in _GREY | _COLOUR:
                raise InvalidInput(f"{picture.name} has pixels of mode {image.mode}; expected 8 bits a channel")
            return use(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"{picture.name} is not a readable image ({printable(error)})") from error
