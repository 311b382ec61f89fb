"""A data set from a folder of images: one subfolder a class (torchvision's ImageFolder layout).

Classes are the subfolders in sorted order. Images come in turn from each class (the first of every
class, then the second of every class, ...), so that a limit takes a fair share of all classes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.datasets._base import SPLITS, About, Dataset
from harness.datasets._check import in_turn
from harness.errors import InvalidInput

__all__ = ["load_folder"]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
_GREY = {"1", "L", "LA"}
_COLOUR = {"RGB", "RGBA", "P", "CMYK", "YCbCr"}


def load_folder(path: Path, *, split: str, limit: int | None) -> Dataset:
    """Read the images of a folder; ``path/train`` and ``path/test`` are its splits if it has them.

    One channel where every image read is grey, else three.

    Raises:
        InvalidInput: no classes or images, images of several sizes, or one that cannot be read.
    """
    root = _root(path, split)
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(folders) < 2:
        raise InvalidInput(
            f"{root}: expected one subfolder of images a class, at least two, got {len(folders)} subfolder"
            f"{'' if len(folders) == 1 else 's'}"
        )
    listed = [(file, label) for label, folder in enumerate(folders) for file in _images(folder)]
    labels = np.array([label for _, label in listed], dtype=np.int64)
    chosen = in_turn(labels)[:limit]
    x, y = _decode([listed[i][0] for i in chosen]), labels[chosen]
    about = About(tuple(folder.name for folder in folders), x.shape[1:])
    return Dataset.of(path.absolute().name, split, x, y, about=about, size=len(listed))


def _root(path: Path, split: str) -> Path:
    if (path / split).is_dir():
        return path / split
    other = next((s for s in SPLITS if (path / s).is_dir()), None)
    if other is not None:
        raise InvalidInput(f"{path} has a folder {other!r} but none called {split!r}; add it, or ask for split {other}")
    return path


def _images(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise InvalidInput(f"{folder} holds no images ({', '.join(sorted(_SUFFIXES))})")
    return files


def _decode(files: list[Path]) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    pictures: list[np.ndarray] = []
    modes: set[str] = set()
    try:
        for file in files:
            with Image.open(file) as image:
                modes.add(image.mode)
                if image.mode not in _GREY | _COLOUR:
                    raise InvalidInput(f"{file} has pixels of mode {image.mode}; expected 8 bits a channel")
                pictures.append(np.asarray(image.convert("RGB")))
            if pictures[-1].shape != pictures[0].shape:
                sizes = [f"{p.shape[1]}x{p.shape[0]}" for p in (pictures[0], pictures[-1])]
                raise InvalidInput(
                    f"all images must be of one size: {files[0]} is {sizes[0]} and {file} is {sizes[1]}; "
                    "resize or crop them first"
                )
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"{file} is not a readable image ({error})") from error
    x = np.stack(pictures).transpose(0, 3, 1, 2)
    return x[:, :1] if modes <= _GREY else x
