"""Folders of images: in which order classes are, which splits there are, and size and crop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness import datasets
from harness.errors import HarnessError, InvalidInput


def folder(root: Path, names: Sequence[str], size: tuple[int, int] = (8, 8)) -> Path:
    """A class each, whose image is as bright as its place in ``names``."""
    for level, name in enumerate(names):
        (root / name).mkdir(parents=True)
        Image.new("L", size, level).save(root / name / "a.png")
    return root


def order(data: datasets.Dataset) -> list[int]:
    """The place of each image's class in the list that the folder was made from, by label."""
    levels = (data.x[:, 0, 0, 0] * 255).round().int().tolist()
    return [level for _, level in sorted(zip(data.y.tolist(), levels, strict=True))]


def test_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    data = datasets.load(folder(tmp_path, [str(n) for n in range(12)]))
    assert order(data) == list(range(12))
    assert data.classes == tuple(map(str, range(12)))


def test_other_names_are_ordered_as_text(tmp_path: Path) -> None:
    assert order(datasets.load(folder(tmp_path, ["b", "a", "10", "9"]))) == [2, 3, 1, 0]


def test_known_names_decide_where_all_folders_have_them(tmp_path: Path) -> None:
    root = folder(tmp_path, ["cat", "dog"])
    data = datasets.load(root, known_classes=("dog", "cow", "cat"))
    assert (data.classes, sorted(data.y.tolist()), order(data)) == (("dog", "cow", "cat"), [0, 2], [1, 0])
    assert datasets.load(root, known_classes=("dog", "cow")).classes == ("cat", "dog")


def test_stated_names_must_be_there(tmp_path: Path) -> None:
    root = folder(tmp_path, ["cat", "dgo"])
    with pytest.raises(InvalidInput, match=r"the subfolder 'dgo', .* did you mean 'dog'"):
        datasets.load(root, classes=("dog", "cow", "cat"))
    with pytest.raises(InvalidInput, match="no folder of images"):
        datasets.load("digits", classes=("a", "b"))


def test_several_sizes_are_noticed_where_the_shape_is_needed(tmp_path: Path) -> None:
    folder(tmp_path, ("cat", "dog"))
    assert datasets.about(str(tmp_path), one_size=True).shape == (1, 8, 8)
    Image.new("L", (9, 8)).save(tmp_path / "dog" / "larger.png")
    assert datasets.about(str(tmp_path)).shape == (1, 8, 8)
    with pytest.raises(InvalidInput, match=r"of one size.*--shape that the model takes"):
        datasets.about(str(tmp_path), one_size=True)


def test_val_is_what_is_tested_on(tmp_path: Path) -> None:
    folder(tmp_path / "val", ["a", "b"])
    data = datasets.load(tmp_path)
    assert (data.split, len(data)) == ("val", 2)
    assert datasets.load(tmp_path, split="val").split == "val"
    with pytest.raises(InvalidInput, match="none called 'train'"):
        datasets.load(tmp_path, split="train")
    with pytest.raises(InvalidInput, match="a split is"):
        datasets.load("digits", split="val")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(40, 30), (31, 47), (16, 16)])
def test_size_and_crop_are_torchvision_s(tmp_path: Path, size: tuple[int, int], interpolation: str) -> None:
    from torchvision.transforms import v2

    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(rng.integers(256, size=(*size, 3), dtype=np.uint8)).save(tmp_path / name / "a.png")
    data = datasets.load(tmp_path, form=datasets.Form(resize=16, crop=12, interpolation=interpolation))
    with Image.open(tmp_path / "a" / "a.png") as image:
        resized = v2.Resize(16, interpolation=v2.InterpolationMode[interpolation.upper()])(image)
        expected = v2.functional.pil_to_tensor(v2.CenterCrop(12)(resized))
    assert torch.equal(data.x[0], expected / 255)


@pytest.mark.parametrize("wrong", [{"resize": 8, "crop": 9}, {"crop": 0}, {"interpolation": "cubic"}, {"resize": -1}])
def test_forms_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(HarnessError):
        datasets.Form(**wrong)
