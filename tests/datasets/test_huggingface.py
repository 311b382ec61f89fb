"""Folders that Hugging Face's ``datasets`` saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness import datasets
from harness.errors import InvalidInput

huggingface: Any = pytest.importorskip("datasets")

LABELS = [0, 0, 1, 1, 2, 2]


def table(labels: list[int] = LABELS, label: Any = None) -> Any:
    """An image a label, as bright as its place."""
    pictures = [Image.fromarray(np.full((5, 4, 3), 10 * place, np.uint8)) for place in range(len(labels))]
    label = huggingface.ClassLabel(names=["ant", "bee", "cow"]) if label is None else label
    features = huggingface.Features({"picture": huggingface.Image(), "kind": label})
    return huggingface.Dataset.from_dict({"picture": pictures, "kind": labels}, features=features)


def places(data: datasets.Dataset) -> list[int]:
    return (data.x[:, 0, 0, 0] * 25.5).round().int().tolist()


def test_images_and_classes_are_read(tmp_path: Path) -> None:
    table([2, 0, 1, 0]).save_to_disk(tmp_path / "saved")
    data = datasets.load(tmp_path / "saved")
    assert (data.name, data.split, data.classes) == ("saved", "test", ("ant", "bee", "cow"))
    assert (data.shape, data.x.dtype, data.y.tolist()) == ((3, 5, 4), torch.float32, [2, 0, 1, 0])
    assert places(data) == [0, 1, 2, 3]
    first = datasets.load(tmp_path / "saved", limit=2)
    assert (len(first), first.size, places(first)) == (2, 4, [0, 1])


def test_a_limit_takes_all_classes_where_they_are_sorted(tmp_path: Path) -> None:
    table().save_to_disk(tmp_path)
    assert datasets.load(tmp_path, limit=3).y.tolist() == [0, 1, 2]


def test_known_names_decide_the_labels(tmp_path: Path) -> None:
    table().save_to_disk(tmp_path)
    data = datasets.load(tmp_path, known_classes=("cow", "bee", "owl", "ant"))
    assert dict(zip(places(data), data.y.tolist(), strict=True)) == {0: 3, 1: 3, 2: 1, 3: 1, 4: 0, 5: 0}
    with pytest.raises(InvalidInput, match="'ant', which is none of the 2 classes named"):
        datasets.load(tmp_path, classes=("bee", "cow"))


def test_splits_have_the_names_of_that_package(tmp_path: Path) -> None:
    huggingface.DatasetDict({"train": table(), "validation": table([1, 2])}).save_to_disk(tmp_path)
    data = datasets.load(tmp_path)
    assert (data.split, data.y.tolist()) == ("val", [1, 2])
    assert len(datasets.load(tmp_path, split="train")) == 6
    huggingface.DatasetDict({"train": table()}).save_to_disk(tmp_path / "train only")
    with pytest.raises(InvalidInput, match="has the splits train but none called 'test'"):
        datasets.load(tmp_path / "train only")


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    table(label=huggingface.Value("int64")).save_to_disk(tmp_path / "numbers")
    with pytest.raises(InvalidInput, match=r"of the type ClassLabel, got 0; its columns are picture \(Image\)"):
        datasets.load(tmp_path / "numbers")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "state.json").write_text("{}")
    with pytest.raises(InvalidInput, match="no data set of Hugging Face's"):
        datasets.load(tmp_path / "empty")
