"""ImageNet's validation images (Russakovsky et al. 2015): the 5,000 that RobustBench evaluates, in its order."""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from harness.datasets._base import About, Member, Request
from harness.datasets._form import AS_THEY_ARE, Form
from harness.datasets._pictures import Picture, decoded
from harness.errors import InvalidInput
from harness.threat import ThreatModel
from harness.util.images import StoredImages

__all__ = ["imagenet"]

_FORM = Form(resize=256, crop=224)
"""RobustBench's, for most of its models."""


def _lists() -> Path:
    """The folder of the installed robustbench that has its lists; that package itself is not imported."""
    found = find_spec("robustbench")
    if found is None or not found.submodule_search_locations:
        raise InvalidInput("imagenet needs the lists of images and classes that robustbench brings: install it")
    return Path(found.submodule_search_locations[0]) / "helper_files"


@cache
def _classes() -> tuple[str, ...]:
    """WordNet's numbers of the classes, as the folders are called, in the order of the labels."""
    label_of: dict[str, int] = json.loads((_lists() / "imagenet_class_to_id_map.json").read_text(encoding="utf-8"))
    return tuple(sorted(label_of, key=label_of.__getitem__))


def _read(request: Request) -> tuple[np.ndarray | StoredImages, np.ndarray, int]:
    if request.split == "train":
        raise InvalidInput("imagenet has the validation images only; for training images name their folder")
    roots = [request.data_dir / part for part in ("imagenet/val", "val", "ILSVRC2012/val")]
    root = next((root for root in roots if root.is_dir()), None)
    if root is None:
        raise InvalidInput(
            f"imagenet was not found: expected {roots[0].absolute()} with a folder of images a class (n01440764, ...); "
            "name the folder above val with --data-dir (it cannot be downloaded)"
        )
    listed = (_lists() / "imagenet_test_image_ids.txt").read_text(encoding="utf-8").split()
    chosen = listed[: request.limit]
    missing = next((name for name in chosen if not (root / name).is_file()), None)
    if missing is not None:
        raise InvalidInput(f"{root} lacks the image {missing}, one of the 5,000 that RobustBench evaluates")
    label_of = {name: label for label, name in enumerate(_classes())}
    labels = np.array([label_of[name.partition("/")[0]] for name in chosen], dtype=np.int64)
    form = _FORM if request.form == AS_THEY_ARE else request.form
    return decoded([Picture(str(root / name), (root / name).read_bytes) for name in chosen], form), labels, len(listed)


imagenet = Member(About(_classes(), (3, 224, 224), (ThreatModel("Linf", "4/255"),)), _read, takes_form=True)
