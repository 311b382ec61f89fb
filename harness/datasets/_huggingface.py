"""A data set that Hugging Face's ``datasets`` saved to a folder (``save_to_disk``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.datasets._base import About, Dataset
from harness.datasets._check import checked_labels, in_turn
from harness.datasets._folder import ordered_classes
from harness.datasets._form import AS_THEY_ARE, Form
from harness.datasets._pictures import Picture, decoded
from harness.errors import InvalidInput

__all__ = ["is_saved", "load_saved"]

_OTHER_NAMES = {"test": ("test", "validation", "val"), "val": ("val", "validation"), "train": ("train",)}


def is_saved(path: Path) -> bool:
    """Whether a folder is one of these."""
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def load_saved(
    path: Path,
    *,
    split: str,
    limit: int | None,
    classes: Sequence[str] | None = None,
    known_classes: Sequence[str] | None = None,
    form: Form = AS_THEY_ARE,
) -> Dataset:
    """Read its column of images and its column of classes.

    The images come in the order in which they were saved; in turn from each class where they are sorted by class. A
    folder of one split is taken for what is asked for.

    Args:
        split, limit, classes, known_classes, form: as in `harness.datasets.load`.

    Raises:
        InvalidInput: the package is missing, the folder is damaged, or its columns are not one of each.
    """
    table, split = _split(_opened(path), path, split)
    kinds = {name: type(feature).__name__ for name, feature in table.features.items()}
    image = _column(kinds, "Image", path)
    label = _column(kinds, "ClassLabel", path)
    found = [str(name) for name in table.features[label].names]
    names = ordered_classes(found, classes, known_classes, path, keep_order=True)
    table = table.with_format(None)
    stated = list(table[label])
    if None in stated:
        raise InvalidInput(f"{path}: image {stated.index(None)} has no class in the column {label!r}")
    labels = np.asarray(stated, dtype=np.int64)
    if len(labels) == 0:
        raise InvalidInput(f"{path} holds no images")
    checked_labels(labels, len(labels), len(found), str(path))
    labels = np.array([names.index(name) for name in found], dtype=np.int64)[labels]
    sorted_by_class = bool((np.diff(labels) >= 0).all())
    chosen = (in_turn(labels) if sorted_by_class else np.arange(len(labels)))[:limit]
    import datasets as huggingface

    encoded = table.cast_column(image, huggingface.Image(decode=False))
    pictures = [_picture(encoded, row, image, path) for row in chosen.tolist()]
    x = decoded(pictures, form)
    about = About(names, (x.shape[1], x.shape[2], x.shape[3]))
    return Dataset.of(path.absolute().name, split, x, labels[chosen], about=about, size=len(labels))


def _opened(path: Path) -> Any:
    try:
        import datasets as huggingface
    except ImportError as error:
        raise InvalidInput(
            f"{path} was saved by Hugging Face's datasets, which is not installed: pip install 'robust-harness[data]'"
        ) from error
    try:
        return huggingface.load_from_disk(str(path))
    except Exception as error:  # whatever the package raises for a folder that is damaged
        raise InvalidInput(f"{path} is no data set of Hugging Face's: {' '.join(str(error).split())}") from error


def _split(loaded: Any, path: Path, split: str) -> tuple[Any, str]:
    if not isinstance(loaded, dict):
        return loaded, split
    name = next((name for name in _OTHER_NAMES[split] if name in loaded), None)
    if name is None:
        raise InvalidInput(f"{path} has the splits {', '.join(loaded)} but none called {split!r}")
    return loaded[name], "val" if name == "validation" else name


def _column(kinds: dict[str, str], kind: str, path: Path) -> str:
    fitting = [name for name, is_a in kinds.items() if is_a == kind]
    if len(fitting) != 1:
        has = ", ".join(f"{name} ({is_a})" for name, is_a in kinds.items())
        raise InvalidInput(f"{path}: expected one column of the type {kind}, got {len(fitting)}; its columns are {has}")
    return fitting[0]


def _picture(table: Any, row: int, column: str, path: Path) -> Picture:
    name = f"{path}: image {row}"

    def read() -> bytes:
        stored = table[row][column]
        if stored is None:
            raise InvalidInput(f"{name} is missing: take the row out of the data set and save it again")
        content: bytes | None = stored["bytes"]
        if content is None:
            raise InvalidInput(f"{name} is no image but the path of one: save the data set again with its images")
        return content

    return Picture(name, read)
