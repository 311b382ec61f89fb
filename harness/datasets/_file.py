"""A data set from one ``.npz`` file: ``x`` and ``y``, and optionally ``classes`` and ``threat``.

A file whose name begins with a registered data set's name (``cifar10_test_600.npz``) has that data
set's classes and standard threat models, unless it brings its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from harness.datasets._archive import read_archive
from harness.datasets._base import About, Dataset
from harness.datasets._check import checked_images, checked_labels, to_nchw
from harness.errors import InvalidInput
from harness.threat import ThreatModel
from harness.util.limits import MOST_CLASSES
from harness.util.user_file import is_in_file

__all__ = ["kin", "load_file"]


def kin(path: Path, names: Sequence[str]) -> str | None:
    """The registered name that a file's name begins with, as whole words; the longest if several."""
    stem = _slug(path)
    fitting = [name for name in names if stem == name or stem.startswith(f"{name}-")]
    return max(fitting, key=len, default=None)


def load_file(
    path: Path,
    *,
    split: str,
    limit: int | None,
    names: Sequence[str],
    about: Callable[[str], About],
    known_classes: Sequence[str] | None = None,
) -> Dataset:
    """Read, check and name the images of an ``.npz`` file.

    Args:
        split: what is asked for; recorded unless the file's name says which split it holds.
        names: registered data sets; ``about`` gives the facts of one.
        known_classes: names of all classes, where the file does not say them and has no other labels.

    Raises:
        InvalidInput: anything in the file that is not as documented, or training images asked of a
            file that says it holds test images.
    """
    relative = kin(path, names)
    hint = f"; the registered data set is --dataset {relative} --data-dir {path.parent}" if relative else ""
    arrays = read_archive(path, required=("x", "y"), optional=("classes", "threat"), hint=hint)
    x, y, where = arrays["x"], arrays["y"], str(path)
    size = len(x) if x.ndim else 0
    checked_labels(y, size, None, where)
    if size and int(y.max()) >= MOST_CLASSES:
        raise InvalidInput(f"{where}: labels must be below {MOST_CLASSES:,}, got {int(y.max())}")
    x = checked_images(to_nchw(x[:limit], where) if x.ndim else x, where)

    if "classes" in arrays:
        classes = _classes(arrays["classes"], where)
    elif relative is not None:
        classes = about(relative).classes
    elif known_classes is not None and int(y.max()) < len(known_classes):
        classes = tuple(known_classes)
    else:
        classes = tuple(str(label) for label in range(int(y.max()) + 1))
    checked_labels(y, size, len(classes), where)

    if "threat" in arrays:
        threats = _threats(arrays["threat"], where)
    else:
        threats = about(relative).threats if relative is not None else ()
    _, channels, height, width = x.shape
    facts = About(classes, (channels, height, width), threats)
    # a file called exactly like a registered data set must not pass for it
    name = path.name if _slug(path) in names else path.stem
    return Dataset.of(name, _split(path, split), x, y[:limit], about=facts, size=size)


def _slug(path: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", path.stem.lower())


def _classes(array: np.ndarray, where: str) -> tuple[str, ...]:
    if array.ndim == 1 and array.dtype.kind == "U" and len(array) > 1:
        return tuple(str(name) for name in array)
    if array.ndim == 0 and array.dtype.kind in "iu" and 1 < array < MOST_CLASSES:
        return tuple(str(label) for label in range(int(array)))
    raise InvalidInput(
        f"{where}: classes must be at least two names (text), or their number, got {array.dtype} {list(array.shape)}"
    )


def _threats(array: np.ndarray, where: str) -> tuple[ThreatModel, ...]:
    if array.ndim > 1 or array.dtype.kind != "U":
        raise InvalidInput(
            f'{where}: threat must be text such as "Linf:8/255", or several, got {array.dtype} {list(array.shape)}'
        )
    threats = tuple(ThreatModel.parse(str(text)) for text in np.atleast_1d(array))
    if any(is_in_file(threat.norm) for threat in threats):
        # a data file must not make Python files run
        raise InvalidInput(f"{where}: a threat's norm is a registered one such as Linf, got {array.tolist()}")
    return threats


def _split(path: Path, asked: str) -> str:
    words = _slug(path).split("-")
    said = [split for split in ("train", "val", "test") if split in words]
    if len(said) != 1:
        return asked
    if asked == "train" and said[0] == "test":
        raise InvalidInput(
            f"{path} says that it holds test images, and training images were asked for; "
            "name the training file, or rename this one"
        )
    return said[0]
