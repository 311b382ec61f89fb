"""Registered files that were changed by a bit or cut short. Hostile ones are made in `tests/hostile`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from harness import checkpoints
from harness.errors import CheckpointError
from tests.registry.material import packed, put, registered, small


@pytest.mark.parametrize("file_format", ["pt", "safetensors"])
@pytest.mark.parametrize("position", [0, 100, 5000, -1])
def test_a_flipped_bit_anywhere_is_noticed(file_format: str, position: int, tmp_path: Path) -> None:
    path = registered(tmp_path, file_format=file_format)
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="sha256 is"):
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
