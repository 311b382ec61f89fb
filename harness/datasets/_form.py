"""Size and crop of images from a folder, as torchvision's and timm's transforms for evaluation do them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import InvalidInput, UnknownName
from harness.util.choices import Interpolation, names

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["AS_THEY_ARE", "INTERPOLATIONS", "Form"]

INTERPOLATIONS = names(Interpolation)


@dataclass(frozen=True)
class Form:
    """What is done to an image first.

    Attributes:
        resize: the shorter side, in pixels; None leaves the size.
        crop: the side of the square that is cut out of the middle; None cuts nothing.
        interpolation: one of `INTERPOLATIONS`.

    Raises:
        UnknownName: an interpolation that is none.
        InvalidInput: a size below 1, or a crop that is larger than what it is cut from.
    """

    resize: int | None = None
    crop: int | None = None
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise UnknownName("interpolation", self.interpolation, INTERPOLATIONS)
        if any(size is not None and size < 1 for size in (self.resize, self.crop)):
            raise InvalidInput(f"sizes of images are at least 1 pixel, got resize {self.resize} and crop {self.crop}")
        if self.resize is not None and self.crop is not None and self.crop > self.resize:
            raise InvalidInput(f"a crop of {self.crop} pixels does not fit into images resized to {self.resize}")

    def of(self, image: Image) -> Image:
        """The image in this form."""
        from PIL.Image import Resampling

        width, height = image.size
        if self.resize is not None and min(width, height) != self.resize:
            shorter = min(width, height)
            # the longer side is rounded down, as torchvision does
            width, height = (int(self.resize * side / shorter) for side in (width, height))
            image = image.resize((width, height), Resampling[self.interpolation.upper()])
        if self.crop is None:
            return image
        if self.crop > min(width, height):
            raise InvalidInput(f"a crop of {self.crop} pixels does not fit into an image of {width}x{height}")
        left, top = round((width - self.crop) / 2), round((height - self.crop) / 2)
        return image.crop((left, top, left + self.crop, top + self.crop))


AS_THEY_ARE = Form()
"""No change."""
