"""Tensors into files of ours, their identity, and how two sets of them differ."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import safetensors.torch
import torch
from torch import Tensor, nn

from harness.errors import CheckpointError
from harness.util.text import printable

__all__ = ["check_finite", "differences", "hash_tensors", "is_counter", "pack", "some"]

_METADATA = "harness"
_COUNTER = "num_batches_tracked"
_LISTED = 4


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse NaN and infinite weights.

    Raises:
        CheckpointError: names the tensors.
    """
    bad = [name for name, t in tensors.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if bad:
        raise CheckpointError(f"{where} holds NaN or infinite values in {some(bad)}")


class _Described(Protocol):
    """What a tensor and the description of one in a file have in common."""

    @property
    def shape(self) -> Sequence[int]: ...

    @property
    def dtype(self) -> torch.dtype: ...


def differences(
    expected: Mapping[str, _Described], found: Mapping[str, _Described], *, types: bool = True
) -> list[str]:
    """What keeps ``found`` from being loaded as ``expected``: names, shapes, dtypes. Empty if nothing does.

    Args:
        types: whether dtypes count.
    """
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    common = [name for name in expected if name in found]
    shapes = [
        f"{name} {list(found[name].shape)} instead of {list(expected[name].shape)}"
        for name in common
        if tuple(found[name].shape) != tuple(expected[name].shape)
    ]
    dtypes = [
        f"{name} {_dtype(found[name])} instead of {_dtype(expected[name])}"
        for name in common
        if types and found[name].dtype != expected[name].dtype
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("shape", shapes), ("dtype", dtypes))
    return [f"{len(names)} {kind} ({some(names)})" for kind, names in kinds if names]


def is_counter(name: str) -> bool:
    """Whether it is one of BN's counters of batches, which old files lack and evaluation never reads."""
    return name.rpartition(".")[2] == _COUNTER


def _dtype(tensor: _Described) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def some(names: Iterable[str]) -> str:
    """The first few of them, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(printable(name) for name in listed[:_LISTED]) + more


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over every tensor's name, dtype, shape and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{_dtype(tensor)}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def pack(network: nn.Module, metadata: Mapping[str, Any], *, safetensors_format: bool) -> bytes:
    """A network's state dict and metadata as the bytes of a file: the same bytes for the same content."""
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    if safetensors_format:
        return safetensors.torch.save(tensors, metadata={_METADATA: json.dumps(dict(metadata), sort_keys=True)})
    buffer = io.BytesIO()
    torch.save({"state_dict": tensors, "metadata": dict(metadata)}, buffer)
    return buffer.getvalue()
