"""Data sets from files and folders of strangers: what is read, and what is refused in one sentence."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness import datasets
from harness.errors import HarnessError, InvalidInput
from tests.support import SHARED

X = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 10), np.uint8)
Y = np.array([0, 1, 2, 0, 1, 2])


def write(folder: Path, name: str = "own.npz", **arrays: Any) -> Path:
    path = folder / name
    np.savez(path, **({"x": X, "y": Y} | arrays))
    return path


@pytest.mark.parametrize(
    "x",
    [
        X,
        X.transpose(0, 2, 3, 1),
        X.astype(np.float32) / np.float32(255),
        (X.astype(np.float32) / np.float32(255)).astype(np.float64),
    ],
    ids=["uint8 NCHW", "uint8 NHWC", "float32", "float64"],
)
def test_every_way_to_store_gives_the_same_images(x: np.ndarray, tmp_path: Path) -> None:
    dataset = datasets.load(write(tmp_path, x=x))
    assert torch.equal(dataset.x, torch.from_numpy(X).float() / 255)
    assert dataset.sha256 == datasets.load(write(tmp_path, "reference.npz")).sha256
    assert dataset.y.tolist() == Y.tolist()
    assert (dataset.name, dataset.split, dataset.shape) == ("own", "test", (3, 8, 10))
    assert dataset.classes == ("0", "1", "2")
    assert dataset.threats == ()
    assert dataset.x.is_contiguous()


def test_grey_images_without_a_channel_axis(tmp_path: Path) -> None:
    assert datasets.load(write(tmp_path, x=X[:, 0])).shape == (1, 8, 10)


def test_a_file_may_bring_classes_and_threats(tmp_path: Path) -> None:
    path = write(tmp_path, classes=np.array(["a", "b", "c", "d"]), threat=np.array(["L2:0.5", "Linf:8/255"]))
    dataset = datasets.load(path, limit=2)
    assert dataset.classes == ("a", "b", "c", "d")
    assert [str(threat) for threat in dataset.threats] == ["L2:0.5", "Linf:8/255"]
    assert (len(dataset), dataset.size) == (2, 6)
    assert datasets.load(write(tmp_path, classes=np.array(7))).classes == tuple("0123456")


def test_names_of_known_data_sets_lend_classes_and_threats(tmp_path: Path) -> None:
    dataset = datasets.load(write(tmp_path, "CIFAR10_test_6.npz"))
    assert dataset.classes[0] == "airplane"
    assert str(dataset.threats[0]) == "Linf:8/255"
    assert dataset.name == "CIFAR10_test_6"
    assert len(datasets.load(write(tmp_path, "cifar100.npz")).classes) == 100
    assert datasets.load(write(tmp_path, "cifar1000.npz")).threats == ()


def test_a_file_cannot_pass_for_a_registered_data_set(tmp_path: Path) -> None:
    assert datasets.load(write(tmp_path, "cifar10.npz")).name == "cifar10.npz"
    assert datasets.load(write(tmp_path, "cifar10_jpeg.npz")).name == "cifar10_jpeg.npz"


def test_the_name_of_a_file_says_its_split(tmp_path: Path) -> None:
    assert datasets.load(write(tmp_path, "own_train_4k.npz"), split="test").split == "train"
    assert datasets.load(write(tmp_path, "own.npz"), split="train").split == "train"
    with pytest.raises(InvalidInput, match="holds test images"):
        datasets.load(write(tmp_path, "own_test.npz"), split="train")


def changed(position: tuple[int, ...], value: float) -> np.ndarray:
    x = X.astype(np.float32) / 255
    x[position] = value
    return x


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.array([0, 1, 2, 0, 1, -1])}, "labels must be 0 or more, got -1 for image 5"),
        (
            {"y": np.array([0, 1, 9, 0, 1, 2]), "classes": np.array(3)},
            "labels must be 0 to 2, got 9 for image 2",
        ),
        ({"y": Y.astype(np.float32)}, "y must be whole numbers, got float32"),
        ({"y": Y[:5]}, r"one label an image, shape \[6\], got \[5\]"),
        ({"y": Y[:, None]}, r"shape \[6\], got \[6, 1\]"),
        ({"x": X.astype(np.int64)}, "x must be uint8, or float in"),
        ({"x": X > 100}, "got bool"),
        ({"x": X.astype(np.complex64)}, "got complex64"),
        ({"x": X.astype(np.float32)}, "got values from 0 to 255"),
        ({"x": changed((3, 0, 0, 0), -0.1)}, "got values from -0.1 to 1"),
        ({"x": changed((4, 1, 2, 3), np.nan)}, "NaN or infinite values, first in image 4"),
        ({"x": changed((2, 1, 2, 3), np.inf)}, "NaN or infinite values, first in image 2"),
        ({"x": X[:0], "y": Y[:0]}, "holds no images"),
        ({"x": X[0, 0]}, r"shape \[8\], got \[6\]"),
        ({"x": X[:, 0, 0]}, "must be images"),
        ({"x": np.float32(1)}, "got"),
        ({"x": np.zeros((6, 8, 8, 8), np.uint8)}, "cannot tell which axis"),
        ({"classes": np.array(["one"])}, "classes must be at least two names"),
        ({"classes": np.array([0.5, 1])}, "classes must be at least two names"),
        ({"threat": np.array([0.1])}, "threat must be text"),
        ({"threat": np.array("Linf:8/0")}, "divides by zero"),
        ({"threat": np.array("Loo:8/255")}, "unknown norm"),
    ],
)
def test_bad_contents_are_one_sentence(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=message) as caught:
        datasets.load(write(tmp_path, **arrays))
    assert "\n" not in str(caught.value)


def test_missing_arrays_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", images=X, y=Y)
    with pytest.raises(InvalidInput, match=r"missing x \(it holds images, y\)"):
        datasets.load(tmp_path / "images.npz")


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("sprung"),)


def test_files_with_code_never_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, y=np.array([Trap()] * 6, dtype=object))
    with pytest.raises(InvalidInput, match="Python objects"):
        datasets.load(path)
    (tmp_path / "raw.npz").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InvalidInput, match=r"not an \.npz archive"):
        datasets.load("raw.npz")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("keep", [0, 10, 200, 700, -30])
def test_truncated_files_are_refused(keep: int, tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InvalidInput, match="cut short"):
        datasets.load(path)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path)
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="damaged"):
        datasets.load(path)


def test_paths_that_are_not_data(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such file"):
        datasets.load(tmp_path / "nowhere.npz")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InvalidInput, match=r"neither an \.npz file nor a folder"):
        datasets.load(tmp_path / "notes.txt")


def picture(path: Path, value: int, *, mode: str = "RGB", size: tuple[int, int] = (10, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if len(mode) == 1 or ";" in mode else (value,) * len(mode)).save(path)


def test_folders_are_read_in_turn_from_each_class(tmp_path: Path) -> None:
    for label, name in enumerate(["cat", "dog"]):
        for i in range(3):
            picture(tmp_path / name / f"{i}.png", 10 * i + label)
    picture(tmp_path / "dog" / "3.png", 31)
    dataset = datasets.load(tmp_path)
    assert (dataset.shape, dataset.size) == ((3, 8, 10), 7)
    assert dataset.classes == ("cat", "dog")
    assert dataset.y.tolist() == [0, 1, 0, 1, 0, 1, 1]
    assert (dataset.x[:, 0, 0, 0] * 255).round().tolist() == [0, 1, 10, 11, 20, 21, 31]
    assert dataset.threats == ()
    part = datasets.load(tmp_path, limit=3)
    assert torch.equal(part.x, dataset.x[:3])
    assert part.size == 7


def test_limit_is_honoured_before_decoding(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / name / "0.png", 1)
        (tmp_path / name / "1.png").write_bytes(b"no image")
    assert len(datasets.load(tmp_path, limit=2)) == 2
    with pytest.raises(InvalidInput, match=r"1\.png is not a readable image"):
        datasets.load(tmp_path, limit=3)


def test_grey_folders_have_one_channel(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "0.png", 51, mode="L")
    picture(tmp_path / "b" / "0.png", 102, mode="L")
    assert datasets.load(tmp_path).x[:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.4])
    assert datasets.load(tmp_path).shape == (1, 8, 10)
    picture(tmp_path / "b" / "1.png", 1)
    assert datasets.load(tmp_path).shape == (3, 8, 10)


def test_folders_with_splits(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / "train" / name / "0.png", 1)
    assert datasets.load(tmp_path, split="train").classes == ("a", "b")
    with pytest.raises(InvalidInput, match="'train' but none called 'test'"):
        datasets.load(tmp_path, split="test")


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="one subfolder of images a class"):
        datasets.load(tmp_path)
    picture(tmp_path / "a" / "0.png", 1)
    (tmp_path / "b").mkdir()
    with pytest.raises(InvalidInput, match="holds no images"):
        datasets.load(tmp_path)
    picture(tmp_path / "b" / "0.png", 1, size=(9, 9))
    with pytest.raises(InvalidInput, match=r"one size: .* is 10x8 and .* is 9x9"):
        datasets.load(tmp_path)
    picture(tmp_path / "b" / "0.png", 1, mode="I;16")
    with pytest.raises(InvalidInput, match="8 bits a channel"):
        datasets.load(tmp_path)


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="no shared data")
def test_shared_files() -> None:
    cifar = datasets.load(SHARED / "data" / "cifar10_test_600.npz", limit=10)
    assert cifar.y.tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert (cifar.name, cifar.split, cifar.size) == ("cifar10_test_600", "test", 600)
    assert datasets.load(SHARED / "data" / "mnist_test.npz", limit=3).y.tolist() == [7, 2, 1]
    assert datasets.about(str(SHARED / "data" / "mnist_test.npz")).shape == (1, 28, 28)


@pytest.mark.parametrize(
    ("names", "order"),
    [(("10", "2", "0"), ("0", "2", "10")), (("10", "2", "b"), ("10", "2", "b")), (("02", "1"), ("1", "02"))],
)
def test_folders_called_by_numbers_are_in_the_order_of_the_numbers(
    names: tuple[str, ...], order: tuple[str, ...], tmp_path: Path
) -> None:
    for name in names:
        picture(tmp_path / name / "0.png", 1)
    assert datasets.load(tmp_path).classes == order
