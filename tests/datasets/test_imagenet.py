"""ImageNet as it lies in its folder, with RobustBench's list of 5,000 images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness import datasets
from harness.errors import InvalidInput

FIRST = ("n09468604/ILSVRC2012_val_00015253.JPEG", "n02823750/ILSVRC2012_val_00020685.JPEG")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in FIRST:
        place = tmp_path / "imagenet" / "val" / name
        place.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(256, size=(300, 400, 3), dtype=np.uint8)).save(place)
    return tmp_path


def test_the_list_s_order_and_labels(root: Path) -> None:
    data = datasets.load("imagenet", data_dir=root, limit=2)
    assert (data.shape, data.size, len(data.classes)) == ((3, 224, 224), 5000, 1000)
    # cliff and beer glass in the order of the 1,000 classes
    assert [data.classes[label] for label in data.y.tolist()] == ["n09468604", "n02823750"]
    assert list(data.classes) == sorted(data.classes)
    assert str(data.threats[0]) == "Linf:4/255"
    assert datasets.load("imagenet", data_dir=root / "imagenet", limit=2).sha256 == data.sha256
    smaller = datasets.load("imagenet", data_dir=root, limit=2, form=datasets.Form(resize=64, crop=48))
    assert smaller.shape == (3, 48, 48)


def test_what_is_missing_is_said(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"lacks the image n09472597/ILSVRC2012_val_00039611\.JPEG"):
        datasets.load("imagenet", data_dir=root)
    with pytest.raises(InvalidInput, match="imagenet was not found"):
        datasets.load("imagenet", data_dir=tmp_path / "nothing")
    with pytest.raises(InvalidInput, match="validation images only"):
        datasets.load("imagenet", data_dir=root, split="train")
