"""The reader gives what torch gives, for whatever torch writes, and uses nothing that a pickle names."""

from __future__ import annotations

import argparse
import collections
import io
import json
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from harness.errors import CheckpointError
from harness.weights import Other, StoredTensor, open_weights, open_weights_or_shards, source_sha256

ROW = torch.arange(12.0).reshape(3, 4)

TENSORS: dict[str, Tensor] = {
    "plain": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "parameter": nn.Parameter(torch.ones(2)),
    "transposed": ROW.t(),
    "view": ROW[1:, 2],
    "same storage": ROW,
    "empty": torch.zeros(0, 3),
    "scalar": torch.tensor(5),
    "channels last": torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1)).to(
        memory_format=torch.channels_last
    ),
    **{
        str(dtype): torch.tensor([0, 1, 1]).to(dtype)
        for dtype in (
            torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16, torch.float64,
            torch.uint16, torch.uint32,
        )
    },
}  # fmt: skip


def same(held: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return held.keys() == expected.keys() and all(
        held[name].dtype == tensor.dtype and torch.equal(held[name], tensor) for name, tensor in expected.items()
    )


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("legacy", [False, True])
def test_what_torch_writes_is_read(protocol: int, legacy: bool, tmp_path: Path) -> None:
    content = OrderedDict(
        state=TENSORS, deeper=[{"again": TENSORS["plain"]}, (1, 2.5, "text", None, True)], epoch=7, big=1 << 40
    )
    path = tmp_path / "w.pt"
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    with open_weights(path) as file:
        assert same(file.read(file.value["state"]), TENSORS)
        again = file.value["deeper"][0]
        assert same(file.read(again), {"again": TENSORS["plain"]})
        assert file.value["deeper"][1] == (1, 2.5, "text", None, True)
        assert (file.value["epoch"], file.value["big"]) == (7, 1 << 40)
        assert file.objects == ()


def test_tensors_of_one_storage_are_read_apart(tmp_path: Path) -> None:
    """A change of one must not be a change of the other, as it would be in memory that they share."""
    torch.save({"a": ROW, "b": ROW[1:]}, tmp_path / "w.pt")
    with open_weights(tmp_path / "w.pt") as file:
        held = file.read(file.value)
    held["a"].zero_()
    assert torch.equal(held["b"], ROW[1:])


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("sprung"),)


def test_objects_beside_the_weights_are_named_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    beside = {
        "args": argparse.Namespace(lr=0.1),
        "history": np.zeros(3),
        "best": np.float64(95.1),
        "log": collections.defaultdict(list),
        "path": Path("x"),
        "set": {1, 2},
        "trap": Trap(),
    }
    torch.save({"weights": TENSORS["plain"], **beside}, "w.pt")
    with open_weights(tmp_path / "w.pt") as file:
        assert same(file.read({"w": file.value["weights"]}), {"w": TENSORS["plain"]})
        assert isinstance(file.value["trap"], Other)
        assert file.value["args"] == Other("an object of argparse.Namespace")
        assert "argparse.Namespace" in file.objects
    assert not Path("sprung").exists()


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: torch.zeros(3, device="meta"), "no data"),
        (lambda: torch.zeros(3).to_sparse(), "sparse"),
        (lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8), "quantised"),
        (lambda: nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_without_plain_numbers_are_named(make: Callable[[], Any], what: str, tmp_path: Path) -> None:
    torch.save({"x": make()}, tmp_path / "w.pt")
    with open_weights(tmp_path / "w.pt") as file:
        assert what in file.value["x"].what


def test_attributes_of_tensors_are_left_out(tmp_path: Path) -> None:
    tagged = nn.Parameter(torch.ones(2))
    tagged.note = 5  # type: ignore[attr-defined]
    torch.save({"x": tagged}, tmp_path / "w.pt")
    with open_weights(tmp_path / "w.pt") as file:
        assert same(file.read(file.value), {"x": torch.ones(2)})


def test_python_2_wrote_dictionaries_with_their_items(tmp_path: Path) -> None:
    with open_weights(_patched(tmp_path, b"ccollections\nOrderedDict\n((lp0\n(lp1\nVa\naI1\naatR.")) as file:
        assert file.value == {"a": 1}


def _patched(folder: Path, pickled: bytes) -> Path:
    """A file of torch.save before 1.6 whose object is replaced by another pickle."""
    buffer = io.BytesIO()
    torch.save(0, buffer, _use_new_zipfile_serialization=False)
    content = buffer.getvalue().replace(pickle.dumps(0, 2), pickled, 1)
    (folder / "old.pt").write_bytes(content)
    return folder / "old.pt"


@pytest.mark.parametrize("name", ["w.safetensors", "w.index.json", "folder"])
def test_safetensors_whole_and_in_parts(name: str, tmp_path: Path) -> None:
    known = {n: t for n, t in TENSORS.items() if t.dtype not in (torch.uint16, torch.uint32)}
    plain = {n: t.detach().clone(memory_format=torch.contiguous_format) for n, t in known.items()}
    halves = {
        "model-00001-of-00002.safetensors": list(plain)[::2],
        "model-00002-of-00002.safetensors": list(plain)[1::2],
    }
    folder = tmp_path / "folder"
    folder.mkdir()
    for part, names in halves.items():
        for place in (folder, tmp_path):
            safetensors.torch.save_file({n: plain[n] for n in names}, place / part)
    index = {"metadata": {}, "weight_map": {n: part for part, names in halves.items() for n in names}}
    (tmp_path / "w.index.json").write_text(json.dumps(index))
    safetensors.torch.save_file(plain, tmp_path / "w.safetensors")
    with open_weights_or_shards(tmp_path / name) as file:
        assert all(isinstance(value, StoredTensor) for value in file.value.values())
        assert same(file.read(file.value), {n: t.detach() for n, t in known.items()})
    assert len(source_sha256(tmp_path / name)) == 64
    assert (
        source_sha256(folder) == source_sha256(tmp_path / "w.index.json") != source_sha256(tmp_path / "w.safetensors")
    )


def test_parts_that_are_elsewhere_missing_or_more_than_one_model(tmp_path: Path) -> None:
    for content, message in [
        ('{"weight_map": {"a": "../w.safetensors"}}', "not beside it"),
        ('{"weight_map": {"a": "gone.safetensors"}}', "not beside it"),
        ('{"weight_map": {}}', "no table 'weight_map'"),
        ("[" * 100_000, "not valid JSON"),
    ]:
        (tmp_path / "w.index.json").write_text(content)
        with pytest.raises(CheckpointError, match=message), open_weights_or_shards(tmp_path / "w.index.json"):
            pytest.fail("opened")
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("a.safetensors", "b.safetensors"):
        safetensors.torch.save_file({"x": torch.zeros(1)}, folder / name)
    with pytest.raises(CheckpointError, match=r"it holds a\.safetensors, b\.safetensors"):
        open_weights_or_shards(folder).__enter__()
    for name in ("m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"):
        safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / name)
    (tmp_path / "w.index.json").write_text(
        '{"weight_map": {"x": "m-00001-of-00002.safetensors", "y": "m-00002-of-00002.safetensors"}}'
    )
    with pytest.raises(CheckpointError, match=r"same name twice \(x\)"):
        open_weights_or_shards(tmp_path / "w.index.json").__enter__()
