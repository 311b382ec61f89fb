"""A data set from a folder of images: one subfolder a class (torchvision's ImageFolder layout).

Classes are the subfolders: in the order of known class names where all of them are among these, in the order of the
numbers where all are numbers, else in that of the text. Images come in turn from each class (the first of every
class, then the second of every class, ...), so that a limit takes a fair share of all classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from harness.datasets._base import SPLITS, About, Dataset
from harness.datasets._check import in_turn
from harness.datasets._form import AS_THEY_ARE, Form
from harness.datasets._pictures import Picture, decoded
from harness.errors import InvalidInput, did_you_mean
from harness.util.reading import read_bounded
from harness.util.text import counted, printable

__all__ = ["load_folder", "ordered_classes"]

_LARGEST = 1 << 28
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}


def load_folder(
    path: Path,
    *,
    split: str,
    limit: int | None,
    classes: Sequence[str] | None = None,
    known_classes: Sequence[str] | None = None,
    form: Form = AS_THEY_ARE,
) -> Dataset:
    """Read the images of a folder; ``path/train``, ``path/val`` and ``path/test`` are its splits if it has them.

    One channel where every image read is grey, else three.

    Args:
        classes: names of all classes, in the order of the labels; there may be images of some of them only.
        known_classes: likewise, where the folders are called so.
        form: size and crop of every image.

    Raises:
        InvalidInput: no classes or images, folders that are no classes, images of several sizes, or one that cannot be
            read.
    """
    root, split = _root(path, split)
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    within = (root.resolve(), *root.resolve().parents)
    circle = next((folder for folder in folders if folder.is_symlink() and folder.resolve() in within), None)
    if circle is not None:
        raise InvalidInput(f"{printable(circle, longest=400)} is a link to a folder that it lies in itself")
    if len(folders) < 2:
        raise InvalidInput(
            f"{root}: expected one subfolder of images a class, at least two, got {counted(len(folders), 'subfolder')}"
        )
    names = ordered_classes([folder.name for folder in folders], classes, known_classes, root)
    label_of = {name: label for label, name in enumerate(names)}
    folders.sort(key=lambda folder: label_of[folder.name])
    listed = [(file, label_of[folder.name]) for folder in folders for file in _images(folder)]
    labels = np.array([label for _, label in listed], dtype=np.int64)
    chosen = in_turn(labels)[:limit]
    files = [listed[i][0] for i in chosen]
    x, y = decoded([Picture(str(file), partial(_content, file)) for file in files], form), labels[chosen]
    about = About(names, (x.shape[1], x.shape[2], x.shape[3]))
    return Dataset.of(path.absolute().name, split, x, y, about=about, size=len(listed))


def ordered_classes(
    found: Sequence[str],
    classes: Sequence[str] | None,
    known: Sequence[str] | None,
    where: Path,
    *,
    keep_order: bool = False,
) -> tuple[str, ...]:
    """The names of all classes in the order of the labels.

    Args:
        found: names that there are images of. classes, known: as in `load_folder`.
        keep_order: the order of ``found`` is that of the labels where no other names are given.

    Raises:
        InvalidInput: one that is found is none of ``classes``.
    """
    if classes is not None:
        strange = [name for name in found if name not in classes]
        if strange:
            raise InvalidInput(
                f"{where} has the subfolder {strange[0]!r}, which is none of the {len(classes)} classes named"
                f"{did_you_mean(strange[0], classes)}"
            )
        return tuple(classes)
    if known is not None and set(found) <= set(known):
        return tuple(known)
    if keep_order:
        return tuple(found)
    if all(name.isdecimal() for name in found):
        return tuple(sorted(found, key=lambda name: (int(name), name)))
    return tuple(sorted(found))


def _content(file: Path) -> bytes:
    try:
        return read_bounded(file, _LARGEST)
    except ValueError as error:
        raise InvalidInput(f"the image {printable(file, longest=400)} cannot be read: {error}") from error


def _root(path: Path, split: str) -> tuple[Path, str]:
    """The folder of a split, and what it is called."""
    # ImageNet calls val what everybody tests on
    for name in (split, "val") if split == "test" else (split,):
        if (path / name).is_dir():
            return path / name, name
    other = next((name for name in (*SPLITS, "val") if (path / name).is_dir()), None)
    if other is not None:
        raise InvalidInput(f"{path} has a folder {other!r} but none called {split!r}; add it, or ask for split {other}")
    return path, split


def _images(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise InvalidInput(f"{printable(folder, longest=400)} holds no images ({', '.join(sorted(_SUFFIXES))})")
    return files
