"""Data sets: one file each, a `Member` that says what is known of it and how its images are read.

Beside the registered names, `load` takes ``FILE.py:NAME``, the path of an ``.npz`` file or of a folder of images.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.datasets._base import SPLITS, About, Dataset, Member, Request, samples_sha256
from harness.datasets._check import checked_images, checked_labels
from harness.datasets._file import load_file
from harness.datasets._folder import load_folder
from harness.datasets._form import AS_THEY_ARE, INTERPOLATIONS, Form
from harness.datasets._huggingface import is_saved, load_saved
from harness.errors import InvalidInput
from harness.util import paths, plugins
from harness.util.images import StoredImages
from harness.util.user_file import is_in_file

__all__ = [
    "AS_THEY_ARE",
    "INTERPOLATIONS",
    "SPLITS",
    "About",
    "Dataset",
    "Form",
    "Member",
    "Request",
    "about",
    "files",
    "load",
    "names",
    "samples_sha256",
]


_FEW = 32
"""Images of a folder that are looked at to see whether all have one size."""


def names() -> tuple[str, ...]:
    """The registered data sets."""
    return plugins.members(__name__)


def about(name: str, *, one_size: bool = False) -> About:
    """Classes, shape and standard threat models; of a registered data set without reading its images.

    Args:
        one_size: refuse a folder whose images have several sizes, as far as some of them show; otherwise the first
            image says the shape.

    Raises:
        UnknownName: no data set of that name.
        InvalidInput: a file or folder that cannot be used.
    """
    if _path(name) is None:
        return _member(name).about
    dataset = load(name, limit=_FEW if one_size else 1)
    return About(dataset.classes, dataset.shape, dataset.threats)


def files(name: str, *, split: str = "test", data_dir: str | Path | None = None) -> tuple[Path, ...] | None:
    """The files and folders that a data set is read from, all that decide its images and labels; nothing is read.

    Returns:
        None where that is not known: of ``FILE.py:NAME`` and of data sets that other packages bring, and of some that
        are large.

    Raises:
        UnknownName, InvalidInput: as `load`.
    """
    path = _path(name)
    if path is not None:
        return (path,)
    if not plugins.is_own(__name__, name):
        return None
    listed = _member(name).files
    return None if listed is None else tuple(listed(Request(split, _data_dir(data_dir), False, None)))


def load(
    name: str | Path,
    *,
    split: str = "test",
    data_dir: str | Path | None = None,
    download: bool = False,
    limit: int | None = None,
    classes: Sequence[str] | None = None,
    known_classes: Sequence[str] | None = None,
    form: Form = AS_THEY_ARE,
) -> Dataset:
    """Read a data set; one of many images stays in a file, and is read as it is needed.

    Args:
        name: a registered name, ``FILE.py:NAME``, the path of an ``.npz`` file, of a folder of images, or of a folder
            that Hugging Face's ``datasets`` saved.
        split: "train" or "test"; of a folder also "val", which is taken for "test" where there is no other.
        data_dir: where registered data sets lie; ``$HARNESS_HOME/data`` if not given, else ``./data``.
        download: fetch what is missing into ``data_dir``.
        limit: take the first so many images.
        classes: of a folder, the names of all classes in the order of the labels; it may have some of them only.
        known_classes: likewise, also of a file, where that does not say otherwise: the classes of the data set that a
            model was made for.
        form: size and crop of the images of a folder, or of a data set whose images have many sizes.

    Raises:
        UnknownName: no data set of that name.
        InvalidInput: the data are missing, damaged, or not as documented; or an argument is out of range.
    """
    path = _path(str(name))
    splits = (*SPLITS, "val") if path is not None and path.is_dir() else SPLITS
    if split not in splits:
        raise InvalidInput(f"a split is {' or '.join(splits)}, got {split!r}")
    if limit is not None and limit < 1:
        raise InvalidInput(f"a limit takes at least 1 image, got {limit}")
    if path is not None and path.is_dir():
        named: dict[str, Any] = {"classes": classes, "known_classes": known_classes}
        read = load_saved if is_saved(path) else load_folder
        return read(path, split=split, limit=limit, form=form, **named)
    if classes is not None or (form != AS_THEY_ARE and not (path is None and _member(str(name)).takes_form)):
        raise InvalidInput(f"{name} is no folder of images: names of classes, --resize and --crop are for folders")
    if path is not None:
        return load_file(path, split=split, limit=limit, names=names(), about=about, known_classes=known_classes)
    member = _member(str(name))
    x, y, size = member.read(Request(split, _data_dir(data_dir), download, limit, form))
    where = f"{name} ({split})"
    checked_labels(y, len(x), len(member.about.classes), where)
    x = x if isinstance(x, StoredImages) else checked_images(x, where)
    return Dataset.of(_label(str(name)), split, x, y, about=member.about, size=size)


def _member(name: str) -> Member:
    member: Member = plugins.lookup(__name__, name, "data set", Member)
    return member


def _label(name: str) -> str:
    """What results call a data set."""
    if not is_in_file(name):
        return name
    own = name.rpartition(":")[2].replace("_", "-")
    # one from a file that is called like a registered data set must not pass for it
    return f"{own}.py" if plugins.is_member(__name__, own) else own


def _path(name: str) -> Path | None:
    """The file or folder that a name stands for, or None if it is (or should be) a registered name."""
    if is_in_file(name) or plugins.is_member(__name__, name):
        return None
    path = Path(name).expanduser()
    looks_like_one = path.suffix.lower() == ".npz" or path.is_dir()
    if not looks_like_one and (os.sep in name or path.is_file()):
        raise InvalidInput(f"{name} is neither an .npz file nor a folder of images")
    return path if looks_like_one else None


def _data_dir(given: str | Path | None) -> Path:
    return paths.data_root() if given is None else Path(given).expanduser()
