"""Devices by name."""

from __future__ import annotations

import pytest
import torch

from harness.errors import InvalidInput
from harness.util.devices import find_device


def test_a_device_that_is_there() -> None:
    assert find_device("cpu") == find_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize(("available", "kind"), [(False, "cpu"), (True, "cuda")])
def test_none_is_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch, available: bool, kind: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert find_device().type == kind


@pytest.mark.parametrize("wanted", ["gpu", "meta", "mps", "cuda:x", ""])
def test_another_kind_of_device(wanted: str) -> None:
    with pytest.raises(InvalidInput, match=f"unknown device '{wanted}': expected cpu, cuda or cuda:N"):
        find_device(wanted)


@pytest.mark.parametrize(("count", "wanted"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2")])
def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch, count: int, wanted: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(InvalidInput, match=f"there is no device {wanted}: this machine has {count} CUDA devices"):
        find_device(wanted)
    if count:
        assert find_device("cuda:1") == torch.device("cuda:1")
