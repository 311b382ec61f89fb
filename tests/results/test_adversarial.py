"""Adversarial examples are stored exactly, and a file that is not what it says is refused."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from safetensors import safe_open
from safetensors.numpy import load, save
from torch import Tensor

from harness.errors import ResultError
from harness.results.adversarial import AdversarialFacts, AdversarialPoints, pack, unpack

FACTS = AdversarialFacts(evaluation_id="e" * 64, weights_sha256="w" * 64, data_sha256="d" * 64)
SHAPE = (6, 3, 8, 8)


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)).to(dtype)


def attacked(x: Tensor, rows: list[int], eps: float = 8 / 255) -> AdversarialPoints:
    signs = torch.randint(0, 2, x[rows].shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return AdversarialPoints(FACTS, np.array(rows, np.int64), (x[rows] + eps * signs.to(x.dtype)).clamp(0, 1))


def written(folder: Path, content: bytes) -> Path:
    path = folder / "adversarial.safetensors"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [[], [3], [0, 2, 5]])
def test_points_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype, rows: list[int]) -> None:
    x = images(dtype)
    before = attacked(x, rows)
    after = unpack(written(tmp_path, pack(before, x)), x)
    assert after.facts == FACTS
    assert after.rows.tolist() == rows
    assert after.points.dtype == dtype
    assert torch.equal(after.points, before.points)


def test_the_same_points_are_the_same_bytes() -> None:
    x = images()
    assert len({pack(attacked(x, [0, 2, 5]), x) for _ in range(20)}) == 1


def test_several_blocks_come_back_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.results.adversarial._BLOCK", 2 * 3 * 64 * 4)
    x = images()
    before = attacked(x, [0, 1, 2, 4, 5])
    assert torch.equal(unpack(written(tmp_path, pack(before, x)), x).points, before.points)


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint32, (2, 3, 4)), arrays(np.uint32, (2, 3, 4)))
def test_any_bit_pattern_comes_back(tmp_path_factory: pytest.TempPathFactory, a: np.ndarray, b: np.ndarray) -> None:  # type: ignore[type-arg]
    """Also NaN, infinities and negative zeros: what was stored is what the verification sees."""
    x, points = torch.from_numpy(a.view(np.float32)), torch.from_numpy(b.view(np.float32))
    path = written(tmp_path_factory.mktemp("any"), pack(AdversarialPoints(FACTS, np.arange(2), points), x))
    assert torch.equal(unpack(path, x).points.view(torch.int32), points.view(torch.int32))


def test_differences_are_stored_only_where_that_is_smaller() -> None:
    x = images()
    near = pack(AdversarialPoints(FACTS, np.arange(6), x.clone()), x)
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 2**32, SHAPE, dtype=np.uint32).view(np.float32))
    far = pack(AdversarialPoints(FACTS, np.arange(6), noise), x)
    assert len(near) < 0.3 * x.numel() * 4
    assert x.numel() * 4 < len(far) < x.numel() * 4 + 2000


def test_a_changed_bit_is_refused_or_seen(tmp_path: Path) -> None:
    """Behind the header, nothing is read as what it was; the hash in the result catches all the rest."""
    x = images()
    before = attacked(x, [0, 2, 5])
    content = pack(before, x)
    draw, header = random.Random(0), 8 + int.from_bytes(content[:8], "little")
    for _ in range(100):
        position, bit = draw.randrange(len(content)), 1 << draw.randrange(8)
        changed = bytearray(content)
        changed[position] ^= bit
        try:
            after = unpack(written(tmp_path, bytes(changed)), x)
        except ResultError:
            continue
        same = torch.equal(after.points, before.points) and np.array_equal(after.rows, before.rows)
        assert not same or position < header


def test_rows_that_do_not_fit_the_images_are_refused(tmp_path: Path) -> None:
    x = images()
    for rows in ([2, 1], [1, 1], [5, 6], [-1, 2]):
        broken = AdversarialPoints(FACTS, np.array(rows), x[:2])
        content = pack(broken, torch.cat([x, x]))
        with pytest.raises(ResultError, match="damaged: expected ascending rows below 6"):
            unpack(written(tmp_path, content), x)


def test_other_images_are_refused(tmp_path: Path) -> None:
    x = images()
    path = written(tmp_path, pack(attacked(x, [0, 1]), x))
    with pytest.raises(ResultError, match=r"expected points of shape \[2, 3, 8, 9\]"):
        unpack(path, torch.zeros(6, 3, 8, 9))


@pytest.mark.parametrize("content", [b"", b"no", (1 << 40).to_bytes(8, "little") + b"{}", b"\0" * 100])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ResultError, match="are damaged"):
        unpack(written(tmp_path, content), images())


def test_a_block_that_expands_beyond_its_points_is_refused(tmp_path: Path) -> None:
    x = images()
    tensors = load(pack(attacked(x, [0]), x))
    bomb = zlib.compress(bytes(50_000_000))
    tensors["blocks"], tensors["lengths"] = np.frombuffer(bomb, np.uint8), np.array([len(bomb)])
    with safe_open(written(tmp_path, pack(attacked(x, [0]), x)), framework="np") as file:
        header = file.metadata()
    with pytest.raises(ResultError, match="another length than its points"):
        unpack(written(tmp_path, save(tensors, header)), x)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="are missing"):
        unpack(tmp_path / "none.safetensors", images())
