"""Data sets that do not fit into memory: read from a file as they are needed, with the same figures bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import TensorDataset

import harness
from harness import datasets
from harness.engine import preflight, snapshots
from harness.engine.types import AttackProgress
from harness.errors import InvalidInput, StorageError
from harness.suites import Step, Suite
from harness.threat.rng import sample_keys
from harness.util import images
from harness.util.images import StoredImages, blocks, cast, take
from harness.util.spool import Spool
from tests.support import linear_model

pytestmark = pytest.mark.usefixtures("unaudited")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def few_in_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have every data set read from a file from now on."""
    return lambda: monkeypatch.setattr(images, "IN_MEMORY", 0)


def folder(root: Path, n: int = 9, mode: str = "RGB") -> Path:
    rng = np.random.default_rng(0)
    for i in range(n):
        place = root / "abc"[i % 3] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=(6, 5, 3), dtype=np.uint8)).convert(mode).save(place)
    return root


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_folder_reads_the_same_images_from_a_file(
    tmp_path: Path, home: Path, few_in_memory: Callable[[], None], mode: str
) -> None:
    root = folder(tmp_path / "pictures", mode=mode)
    held = datasets.load(root)
    few_in_memory()
    read = datasets.load(root)
    assert isinstance(held.x, Tensor)
    assert isinstance(read.x, StoredImages)
    assert read.x.shape == tuple(held.x.shape)
    assert torch.equal(read.x[:], held.x)
    assert read.sha256 == held.sha256
    assert (sample_keys(read.x) == sample_keys(held.x)).all()
    [kept] = (home / "cache" / "images").iterdir()
    assert datasets.load(root).sha256 == held.sha256, "the file is used again"
    # other content has another file, whatever files are called and whenever they were written
    Image.new(mode, (5, 6), 7).save(root / "a" / "0.png")
    assert datasets.load(root).sha256 != held.sha256
    assert kept.is_file()


def test_another_version_of_pillow_decodes_anew(
    tmp_path: Path, home: Path, few_in_memory: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path / "pictures")
    few_in_memory()
    for version in ("11.0.0", "11.1.0", "11.1.0"):
        monkeypatch.setattr("PIL.__version__", version)
        datasets.load(root)
    assert len(list((home / "cache" / "images").iterdir())) == 2


def test_a_file_that_is_cut_short_is_named(tmp_path: Path, home: Path, few_in_memory: Callable[[], None]) -> None:
    root = folder(tmp_path / "pictures")
    few_in_memory()
    data = datasets.load(root)
    [kept] = (home / "cache" / "images").iterdir()
    content = kept.read_bytes()
    kept.write_bytes(content[:-1])
    with pytest.raises(StorageError, match="cut short"):
        datasets.load(root)
    with pytest.raises(StorageError, match="cut short"):
        data.x[-1:]


def test_images_of_several_sizes_leave_no_file(tmp_path: Path, home: Path, few_in_memory: Callable[[], None]) -> None:
    root = folder(tmp_path / "pictures")
    Image.new("RGB", (9, 9)).save(root / "c" / "z.png")
    few_in_memory()
    with pytest.raises(InvalidInput, match="of one size"):
        datasets.load(root)
    assert not list((home / "cache" / "images").glob("*"))


def test_rows_are_chosen_as_from_a_tensor(tmp_path: Path) -> None:
    x = torch.rand(7, 2, 3)
    spool = Spool(tmp_path)
    spool.append(x[:4])
    spool.append(x[4:])
    read = spool.images()
    chosen: list[Any] = [
        3,
        slice(2, 5),
        slice(-1, None),
        [4, 1, 1],
        [],
        torch.tensor([6, 0]),
        np.array([5]),
        np.array([True, False] * 3 + [True]),
    ]
    for rows in chosen:
        assert torch.equal(read[rows], x[rows]), rows
    for rows in chosen[1:]:
        assert torch.equal(take(read, rows)[:], x[rows]), rows
    assert torch.equal(torch.cat(list(blocks(read))), x)
    assert torch.equal(cast(read, torch.float64)[:], x.double())
    with pytest.raises(IndexError):
        read[7]


def test_a_spool_keeps_bytes_as_long_as_it_can(tmp_path: Path) -> None:
    levels = torch.arange(24, dtype=torch.uint8).reshape(4, 6)
    floats = levels.float() / 255
    spool = Spool(tmp_path)
    for part in (levels, floats):
        spool.append(part)
    assert spool.images().stored == np.uint8
    assert torch.equal(spool.images()[:], torch.cat([floats, floats]))
    between = floats + 1e-4
    spool.append(between)
    spool.append(levels)
    assert torch.equal(spool.images()[:], torch.cat([floats, floats, between, floats]))
    with pytest.raises(ValueError, match="after"):
        spool.append(torch.rand(2, 5))


SHORT = Suite(
    "short",
    (
        Step("pgd", "pgd", {"steps": 3, "restarts": 2}),
        Step("apgd-t", "apgd", {"loss": "dlr-targeted", "steps": 5, "targets": 3}),
        Step("square", "square", {"queries": 30}),
    ),
)


@pytest.mark.parametrize("workers", [1, 2])
def test_verdicts_do_not_depend_on_where_images_are(
    home: Path, monkeypatch: pytest.MonkeyPatch, few_in_memory: Callable[[], None], workers: int
) -> None:
    digits = datasets.load("digits", limit=24)
    model = linear_model(10, (1, 8, 8), dtype=torch.float32)
    data = TensorDataset(digits.x[:], model(digits.x[:]).argmax(1))
    how: dict[str, Any] = {"threat": "Linf:0.01", "suite": SHORT, "deterministic": True, "device": "cpu"}
    held = harness.evaluate(model, data, workers=1, **how)
    few_in_memory()
    # so that samples are attacked a few at a time
    monkeypatch.setattr(preflight, "_MOST_AT_ONCE", 64)
    monkeypatch.setattr(preflight, "_MOST_IN_A_STEP", 64)
    read = harness.evaluate(model, data, workers=workers, batch_size=4, **how)
    assert 0 < held.robust_acc < 1
    assert read.evaluation_id == held.evaluation_id
    passes = ("forward", "backward")  # of the checks before the attack, too, which depend on the batch size
    for name, values in held.verdicts.arrays().items():
        assert name in passes or (values == read.verdicts.arrays()[name]).all(), name
    assert torch.equal(held.adversarial_examples, read.adversarial_examples)
    told = [(step.before, step.after, step.forward, step.backward) for step in held.steps]
    assert told == [(step.before, step.after, step.forward, step.backward) for step in read.steps]


def test_a_killed_run_goes_on_from_its_file(
    home: Path, monkeypatch: pytest.MonkeyPatch, few_in_memory: Callable[[], None]
) -> None:
    digits = datasets.load("digits", limit=24)
    model = linear_model(10, (1, 8, 8), dtype=torch.float32)
    y = model(digits.x[:]).argmax(1)
    few_in_memory()
    spool = Spool(home)
    spool.append(digits.x[:])
    monkeypatch.setattr(preflight, "_MOST_AT_ONCE", 64)
    monkeypatch.setattr(preflight, "_MOST_IN_A_STEP", 64)
    monkeypatch.setattr(snapshots, "_INTERVAL", 0.0)
    monkeypatch.setattr(snapshots, "_MOST_OF_THE_TIME", 1e9)
    how: dict[str, Any] = {"threat": "Linf:0.01", "suite": SHORT, "device": "cpu", "workers": 1, "batch_size": 4}
    how["deterministic"] = True
    whole = harness.evaluate(model, spool.images(), y, **how)
    attacked: list[int] = []

    def killed(progress: AttackProgress) -> None:
        attacked.append(progress.surviving)
        if len(attacked) == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        harness.evaluate(model, spool.images(), y, state_dir=home / "state", progress=killed, **how)
    assert list((home / "state").rglob("points.bin"))
    resumed = harness.evaluate(model, spool.images(), y, state_dir=home / "state", **how)
    assert torch.equal(resumed.adversarial_examples, whole.adversarial_examples)
    told = [(step.before, step.after, step.forward, step.backward) for step in whole.steps]
    assert told == [(step.before, step.after, step.forward, step.backward) for step in resumed.steps]
