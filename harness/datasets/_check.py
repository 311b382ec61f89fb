"""Checks of images and labels that came from outside."""

from __future__ import annotations

import numpy as np

from harness.errors import InvalidInput

__all__ = ["checked_images", "checked_labels", "in_turn", "to_nchw"]

_LARGEST_FLOAT = 8  # bytes; torch knows no longer ones


def in_turn(y: np.ndarray) -> np.ndarray:
    """Positions that take images in turn from each class (the first of every class, then the second, ...).

    For data that come sorted by class, so that a limit takes a fair share of all classes.
    """
    turn = np.zeros(len(y), dtype=np.int64)
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        turn[rows] = np.arange(len(rows))
    return np.lexsort((y, turn))


def to_nchw(x: np.ndarray, where: str) -> np.ndarray:
    """Images as ``[n, C, H, W]``, whichever way they came; ``[n, H, W]`` is one channel.

    The channel axis is the one that is smaller than both others.

    Raises:
        InvalidInput: another number of axes, or no axis that is clearly the channels.
    """
    if x.ndim == 3:
        return x[:, None]
    if x.ndim != 4:
        raise InvalidInput(
            f"{where}: x must be images [n, C, H, W] or [n, H, W, C], got an array of shape {list(x.shape)}"
        )
    _, first, middle, last = x.shape
    if first < min(middle, last):
        return x
    if last < min(first, middle):
        return x.transpose(0, 3, 1, 2)
    raise InvalidInput(
        f"{where}: cannot tell which axis of x {list(x.shape)} holds the channels (it must be smaller than "
        "height and width); store x as [n, C, H, W]"
    )


def checked_images(x: np.ndarray, where: str) -> np.ndarray:
    """``x`` itself, once it is known to be images.

    Raises:
        InvalidInput: no images, an integer type other than uint8, NaN, or values outside [0, 1].
    """
    if x.size == 0:
        raise InvalidInput(f"{where}: x holds no images (shape {list(x.shape)})")
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind != "f" or x.itemsize > _LARGEST_FLOAT:
        raise InvalidInput(f"{where}: x must be uint8, or float in [0, 1], got {x.dtype}")
    low, high = float(x.min()), float(x.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int(np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))[0])
        raise InvalidInput(f"{where}: x holds NaN or infinite values, first in image {bad}")
    if low < 0 or high > 1:
        raise InvalidInput(
            f"{where}: float images must lie in [0, 1], got values from {low:g} to {high:g}; "
            "store them as uint8, or scale them (normalisation belongs into the model)"
        )
    return x


def checked_labels(y: np.ndarray, n: int, classes: int | None, where: str) -> np.ndarray:
    """``y`` itself, once it is known to be ``n`` labels of ``classes`` classes (None: not known).

    Raises:
        InvalidInput: another shape or type, or a label outside the classes.
    """
    if y.shape != (n,):
        raise InvalidInput(
            f"{where}: y must hold one label an image, shape [{n}], got {list(y.shape)}; of one-hot labels store "
            "y.argmax(1), of a column y.ravel()"
        )
    if y.dtype.kind not in "iu":
        raise InvalidInput(f"{where}: y must be whole numbers, got {y.dtype}; store y.astype('int64')")
    bad = np.flatnonzero((y < 0) | (y >= classes) if classes is not None else y < 0)
    if bad.size:
        expected = f"0 to {classes - 1}" if classes is not None else "0 or more"
        raise InvalidInput(
            f"{where}: labels must be {expected}, got {int(y[bad[0]])} for image {int(bad[0])}"
            f" ({bad.size} such label{'s' if bad.size > 1 else ''})"
        )
    return y
