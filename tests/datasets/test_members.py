"""Registered data sets: what they hold, and that it never changes unnoticed."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness import datasets
from harness.errors import InvalidInput, UnknownName
from tests.support import SHARED

DIGITS = {
    "train": (1297, "85a86292535d27da57bc8c115c70a2d23640ffe4979177e0b9c5ac6d8d0dc499"),
    "test": (500, "b3bd8619a5e132f5f50fae0b335524c0d75e3a53785c0a787baf1abdfff20221"),
}


@pytest.mark.parametrize("name", datasets.names())
def test_facts_are_known_without_data(name: str) -> None:
    about = datasets.about(name)
    assert len(about.classes) == len(set(about.classes)) >= 2
    assert len(about.shape) == 3
    assert about.threats


def test_standard_threat_models() -> None:
    threats = {name: [str(threat) for threat in datasets.about(name).threats] for name in datasets.names()}
    assert threats["digits"] == ["Linf:0.15"]
    assert threats["mnist"] == ["Linf:0.3"]
    for name in ("cifar10", "cifar100", "cifar10-jpeg"):
        assert threats[name] == ["Linf:8/255", "L2:0.5"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_digits_are_always_the_same(split: str) -> None:
    size, content = DIGITS[split]
    digits = datasets.load("digits", split=split)
    assert (len(digits), digits.size, digits.shape) == (size, size, (1, 8, 8))
    assert digits.sha256 == content
    assert digits.x.dtype == torch.float32
    assert digits.y.dtype == torch.int64
    assert digits.x.min() == 0
    assert digits.x.max() == 1


def test_digits_splits_are_disjoint_and_stratified() -> None:
    train, test = (datasets.load("digits", split=split) for split in ("train", "test"))
    pixels = [{image.numpy().tobytes() for image in part.x} for part in (train, test)]
    assert len(pixels[0]) == 1297
    assert len(pixels[1]) == 500
    assert not pixels[0] & pixels[1]
    share = test.y.bincount() / (test.y.bincount() + train.y.bincount())
    assert torch.allclose(share, torch.full((10,), 500 / 1797), atol=0.004)


def test_limit_takes_the_first() -> None:
    whole, part = datasets.load("digits"), datasets.load("digits", limit=7)
    assert torch.equal(part.x, whole.x[:7])
    assert torch.equal(part.y, whole.y[:7])
    assert part.size == whole.size == 500
    assert part.indices.tolist() == list(range(7))
    assert part.sha256 != whole.sha256
    assert len(datasets.load("digits", limit=10_000)) == 500


@pytest.mark.parametrize("limit", [0, -3])
def test_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(InvalidInput, match="at least 1 image"):
        datasets.load("digits", limit=limit)


def test_unknown_names_are_listed_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"cifar10, cifar10-jpeg, .*did you mean 'cifar10'"):
        datasets.load("cifar-10")
    with pytest.raises(InvalidInput, match="train or test"):
        datasets.load("digits", split="validation")


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_missing_data_say_where_they_were_looked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--download") as caught:
        datasets.load(name, data_dir=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_data_dir_defaults_to_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    with pytest.raises(InvalidInput) as caught:
        datasets.load("cifar10-jpeg")
    assert str(tmp_path / "data" / "cifar10_jpeg_test.npz") in str(caught.value)


def test_mnist_is_read_from_its_files(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    x, y = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8), np.arange(5, dtype=np.uint8)
    for prefix in ("train", "t10k"):
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, 5, 28, 28) + x.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 5) + y.tobytes())
    mnist = datasets.load("mnist", data_dir=tmp_path, limit=4)
    assert torch.equal(mnist.x, torch.from_numpy(x[:4, None]).float() / 255)
    assert mnist.y.tolist() == [0, 1, 2, 3]
    assert (mnist.size, mnist.name, mnist.split) == (5, "mnist", "test")


@pytest.mark.parametrize(("name", "key"), [("cifar10", "labels"), ("cifar100", "fine_labels")])
def test_cifar_is_read_from_its_files(name: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    source = getattr(torchvision.datasets, name.upper())
    x = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), np.uint8)
    folder = tmp_path / source.base_folder
    folder.mkdir()
    batch = pickle.dumps({"data": x.reshape(6, -1), key: [0, 1, 2, 3, 4, 9]})
    meta = pickle.dumps({source.meta["key"]: list("abcdefghij")})
    (folder / "batch").write_bytes(batch)
    (folder / source.meta["filename"]).write_bytes(meta)
    md5 = [hashlib.md5(content).hexdigest() for content in (batch, meta)]
    monkeypatch.setattr(source, "train_list", [["batch", md5[0]]])
    monkeypatch.setattr(source, "test_list", [["batch", md5[0]]])
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": md5[1]})
    cifar = datasets.load(name, data_dir=tmp_path, split="train")
    assert torch.equal(cifar.x, torch.from_numpy(x).float() / 255)
    assert cifar.y.tolist() == [0, 1, 2, 3, 4, 9]
    assert cifar.split == "train"
    (folder / "batch").write_bytes(batch[:-1])
    with pytest.raises(InvalidInput, match="damaged"):
        datasets.load(name, data_dir=tmp_path, split="train")


def jpeg_archive(path: Path, *, size: int = 32, n: int = 6) -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    files, pictures = [], []
    for _ in range(n):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (size, size, 3), np.uint8)).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
        pictures.append(np.asarray(Image.open(io.BytesIO(files[-1]))).transpose(2, 0, 1))
    offset = np.cumsum([0, *map(len, files)])
    y = np.repeat(np.arange(2, dtype=np.uint8), n // 2)
    np.savez(path, jpeg=np.frombuffer(b"".join(files), np.uint8), offset=offset, y=y)
    return pictures


def test_jpegs_are_decoded_in_turn_from_each_class(tmp_path: Path) -> None:
    pictures = jpeg_archive(tmp_path / "cifar10_jpeg_test.npz")
    dataset = datasets.load("cifar10-jpeg", data_dir=tmp_path, limit=3)
    assert (dataset.name, dataset.size) == ("cifar10-jpeg", 6)
    assert dataset.y.tolist() == [0, 1, 0]
    expected = np.stack([pictures[i] for i in (0, 3, 1)])
    assert torch.equal(dataset.x, torch.from_numpy(expected).float() / 255)


def test_jpegs_of_another_size_or_broken_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cifar10_jpeg_test.npz"
    jpeg_archive(path, size=16)
    with pytest.raises(InvalidInput, match="16x16, expected 32x32"):
        datasets.load("cifar10-jpeg", data_dir=tmp_path)
    np.savez(path, jpeg=np.zeros(9, np.uint8), offset=np.array([0, 9]), y=np.zeros(1, np.uint8))
    with pytest.raises(InvalidInput, match="image 0 is not a readable JPEG"):
        datasets.load("cifar10-jpeg", data_dir=tmp_path)
    np.savez(path, jpeg=np.zeros(9, np.uint8), offset=np.array([0]), y=np.zeros(1, np.uint8))
    with pytest.raises(InvalidInput, match=r"offset \[n\+1\]"):
        datasets.load("cifar10-jpeg", data_dir=tmp_path)


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="no shared data")
def test_shared_jpegs() -> None:
    dataset = datasets.load("cifar10-jpeg", data_dir=SHARED / "data", limit=20)
    assert dataset.y.tolist() == [*range(10), *range(10)]
    assert dataset.size == 10_000
    with pytest.raises(InvalidInput, match="--dataset cifar10-jpeg --data-dir"):
        datasets.load(SHARED / "data" / "cifar10_jpeg_test.npz")
