"""Bounds of what a file from elsewhere may claim, far above what anybody has: beyond them it is damaged or hostile."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["MOST_CLASSES", "MOST_PIXELS", "is_image_shape"]

MOST_CLASSES = 1_000_000
MOST_PIXELS = 1 << 26


def is_image_shape(shape: Sequence[int]) -> bool:
    """Whether an image can have this shape."""
    return min(shape) >= 1 and math.prod(shape) <= MOST_PIXELS
