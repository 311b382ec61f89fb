"""Files that are broken, foreign or hostile: each is refused in one sentence, and none ever runs."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness import checkpoints
from harness.errors import CheckpointError
from tests.registry.material import packed, put, registered, small, weights


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("sprung"),)


def first() -> str:
    return next(iter(weights()))


def with_first(change: Callable[[Tensor], Any]) -> dict[str, Any]:
    tensors: dict[str, Any] = weights()
    tensors[first()] = change(tensors[first()])
    return tensors


def with_nan(tensor: Tensor) -> Tensor:
    tensor.view(-1)[3] = torch.nan
    return tensor


def twice_in_pickle(*, legacy: bool = False) -> bytes:
    """A state dict whose pickle gives one name two values: ``a`` and ``b`` are made the same name."""
    tensors = {"aa": torch.zeros(2), "bb": torch.ones(2), **weights()}
    buffer = io.BytesIO()
    torch.save({"state_dict": tensors}, buffer, _use_new_zipfile_serialization=not legacy)
    if legacy:
        return buffer.getvalue().replace(b"X\x02\x00\x00\x00bb", b"X\x02\x00\x00\x00aa")
    return rezip(
        buffer.getvalue(), "data.pkl", lambda data: data.replace(b"X\x02\x00\x00\x00bb", b"X\x02\x00\x00\x00aa")
    )


def rezip(content: bytes, suffix: str, change: Callable[[bytes], bytes], *, again: bool = False) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            target.writestr(info.filename, change(data) if info.filename.endswith(suffix) else data)
            if again and info.filename.endswith(suffix):
                target.writestr(info.filename, data)
    return out.getvalue()


def whole_model() -> bytes:
    return packed(small())


def giant() -> Tensor:
    return torch.zeros(1).expand(10**12)


HOSTILE: list[tuple[str, Callable[[], bytes], str]] = [
    ("empty", lambda: b"", "is empty"),
    ("text", lambda: b"these are no weights", "no file of weights"),
    ("html", lambda: b"<!DOCTYPE html><html>404</html>", "no file of weights"),
    ("code", lambda: packed({"state_dict": weights(), "metadata": Trap()}), r"Python objects \(.*getattr"),
    ("bare pickle with code", lambda: pickle.dumps(Trap()), "torch.save did not write"),
    ("whole model", whole_model, r"Python objects \(harness\.models\._base\.Model, "),
    ("truncated", lambda: packed({"state_dict": weights()})[:-200], "cut short"),
    ("half", lambda: packed({"state_dict": weights()})[:9000], "cut short"),
    ("no state dict", lambda: packed(weights()), "no entry 'state_dict'"),
    ("bare list", lambda: packed([torch.zeros(2)]), "no entry 'state_dict'"),
    ("list inside", lambda: packed({"state_dict": [torch.zeros(2)]}), "expected a dictionary"),
    ("nothing inside", lambda: packed({"state_dict": {}}), "holds no tensors"),
    ("number for a tensor", lambda: packed({"state_dict": with_first(lambda t: 1.5)}), "got a value of type float"),
    ("number for a name", lambda: packed({"state_dict": {5: torch.zeros(1)}}), "got a tensor at '5'"),
    ("NaN", lambda: packed({"state_dict": with_first(with_nan)}), "NaN or infinite values in"),
    ("infinite", lambda: packed({"state_dict": with_first(lambda t: t / 0)}), "NaN or infinite values in"),
    ("complex", lambda: packed({"state_dict": with_first(lambda t: t.to(torch.complex64))}), "is complex"),
    ("half precision", lambda: packed({"state_dict": with_first(Tensor.half)}), "float16 instead of float32"),
    ("bfloat16", lambda: packed({"state_dict": with_first(Tensor.bfloat16)}), "bfloat16 instead of float32"),
    ("double", lambda: packed({"state_dict": with_first(Tensor.double)}), "float64 instead of float32"),
    ("meta", lambda: packed({"state_dict": with_first(lambda t: t.to("meta"))}), "has no data"),
    ("giant view", lambda: packed({"state_dict": with_first(lambda t: giant())}), "claims 1000000000000 elements"),
    ("expanded", lambda: packed({"state_dict": with_first(lambda t: t[:1].expand_as(t))}), "claims .* elements"),
    ("sparse", lambda: packed({"state_dict": with_first(lambda t: t.to_sparse())}), "not a plain one|Python objects"),
    ("shape", lambda: packed({"state_dict": with_first(lambda t: t[:3])}), r"1 shape \(.* instead of"),
    ("transposed", lambda: packed({"state_dict": with_first(lambda t: t.transpose(0, 1))}), "1 shape"),
    ("missing", lambda: packed({"state_dict": dict(list(weights().items())[2:])}), r"2 missing \("),
    ("unexpected", lambda: packed({"state_dict": {**weights(), "zz": torch.zeros(1)}}), r"1 unexpected \(zz\)"),
    ("same name twice", twice_in_pickle, r"same name twice \(aa\)"),
    ("same name twice, legacy", lambda: twice_in_pickle(legacy=True), r"same name twice \(aa\)"),
    (
        "same record twice",
        lambda: rezip(packed({"state_dict": weights()}), "data/0", lambda data: data, again=True),
        "same name twice|damaged",
    ),
    (
        "flipped bit in a record",
        lambda: packed({"state_dict": weights()}).replace(b"\x00\x00\x80?", b"\x00\x00\x80\xff", 1),
        "another hash|damaged|NaN",
    ),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("make", "message"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_hostile_files(
    make: Callable[[], bytes], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = registered(tmp_path)
    put(path, make())
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoints.load(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("file_format", ["pt", "safetensors"])
@pytest.mark.parametrize("position", [0, 100, 5000, -1])
def test_a_flipped_bit_anywhere_is_noticed(file_format: str, position: int, tmp_path: Path) -> None:
    path = registered(tmp_path, file_format=file_format)
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="sha256 is"):
        checkpoints.load(path)


def safetensors_bytes(header: str, data: bytes) -> bytes:
    encoded = header.encode()
    return len(encoded).to_bytes(8, "little") + encoded + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x00", "damaged"),
        (safetensors_bytes("{", b""), "damaged"),
        (safetensors_bytes('{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}', b"\0" * 8), "cut short"),
        (
            safetensors_bytes(
                '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                '"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
                b"\0" * 8,
            ),
            "same name twice|damaged",
        ),
        (safetensors_bytes('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4), "1 unexpected"),
    ],
)
def test_hostile_safetensors(content: bytes, message: str, tmp_path: Path) -> None:
    path = registered(tmp_path, file_format="safetensors")
    put(path, content)
    with pytest.raises(CheckpointError, match=message):
        checkpoints.load(path)


def test_a_file_that_was_cut_short(tmp_path: Path) -> None:
    path = registered(tmp_path)
    path.write_bytes(path.read_bytes()[: 1 << 13])
    with pytest.raises(CheckpointError, match="fetch it again"):
        checkpoints.load(path)


def test_weights_in_another_memory_format_are_the_same_weights(tmp_path: Path) -> None:
    path = registered(tmp_path)
    model = small().to(memory_format=torch.channels_last)
    put(path, packed({"state_dict": dict(model.network.state_dict())}))
    assert checkpoints.weights_sha256(checkpoints.load(path).model) == checkpoints.weights_sha256(small())


def test_the_file_holds_only_plain_things(tmp_path: Path) -> None:
    content = torch.load(registered(tmp_path), weights_only=True)
    assert set(content) == {"state_dict", "metadata"}
    assert json.loads(json.dumps(content["metadata"]))["architecture"] == "digits-resnet"
    assert type(content["state_dict"]) is dict
