"""Tensors out of files from strangers, into files of ours, and their identity."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from harness.checkpoints._duplicates import repeated_names
from harness.errors import CheckpointError

__all__ = ["check_finite", "differences", "hash_tensors", "pack", "plain_tensors", "read_bytes", "unpack"]

_METADATA = "harness"
_GLOBAL = re.compile(r"(?:GLOBAL|global|function|class) [`'\"]?([A-Za-z_][\w.]*)")
_LISTED = 4


def read_bytes(path: Path) -> bytes:
    """The whole file, so that what is hashed is what is loaded.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error


def unpack(content: bytes, where: str, *, safetensors_format: bool) -> tuple[Any, dict[str, Any]]:
    """What a file holds (usually a dictionary), and this package's metadata if it is one of its own.

    Nothing in the file is ever run: ``.safetensors`` cannot hold code, and anything else is loaded with
    ``weights_only=True``.

    Raises:
        CheckpointError: it is damaged, holds Python objects, or the same name twice.
    """
    if not content:
        raise CheckpointError(f"{where} is empty")
    try:
        if safetensors_format:
            held: Any = safetensors.torch.load(content)
            metadata = _safetensors_metadata(content)
        else:
            held = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            metadata = held.get("metadata") if isinstance(held, dict) else None
        repeated = repeated_names(content, safetensors=safetensors_format)
    except Exception as error:  # a hostile file can make its reader raise anything
        raise CheckpointError(f"{where} {_why(error)}") from error
    if repeated:
        raise CheckpointError(f"{where} holds the same name twice ({_some(repeated)}), so what it means is not certain")
    return held, metadata if isinstance(metadata, dict) else {}


def _safetensors_metadata(content: bytes) -> Any:
    length = int.from_bytes(content[:8], "little")
    text = json.loads(content[8 : 8 + length]).get("__metadata__", {}).get(_METADATA)
    return json.loads(text) if text else None


def _why(error: Exception) -> str:
    text = " ".join(str(error).split())
    advice = "save a plain state dict with torch.save(model.state_dict(), FILE)"
    if "TorchScript" in text:
        return f"is a TorchScript archive; {advice}"
    if "Weights only" in text or "WeightsUnpickler" in text:
        named = _GLOBAL.search(text)
        if named:
            return (
                f"holds Python objects ({named.group(1)}), which could run code when opened, so it was not opened; "
                f"{advice}"
            )
        return (
            "is no file of weights, is damaged, or holds Python objects, which could run code when opened, so it "
            f"was not opened; {advice}"
        )
    return f"is damaged, cut short, or no file of weights ({type(error).__name__}: {text.partition('. ')[0]})"


def plain_tensors(held: Any, where: str) -> dict[str, Tensor]:
    """A dictionary of names and plain tensors that really have the bytes they claim.

    Raises:
        CheckpointError: anything else: a list, other values, tensors without data, overlapping, sparse,
            quantized or complex ones.
    """
    if not isinstance(held, Mapping):
        raise CheckpointError(f"{where} holds a {type(held).__name__}, expected a dictionary of names and tensors")
    if not held:
        raise CheckpointError(f"{where} holds no tensors")
    tensors: dict[str, Tensor] = {}
    for name, value in held.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{where}: expected names and tensors only, got {_kind(value)} at {name!r}")
        defect = _defect(value)
        if defect:
            raise CheckpointError(f"{where}: the tensor {name!r} {defect}")
        tensors[name] = value.detach()
    return tensors


def _kind(value: Any) -> str:
    return "a tensor" if isinstance(value, Tensor) else f"a value of type {type(value).__name__}"


def _defect(tensor: Tensor) -> str | None:
    if tensor.device.type != "cpu":
        return f"has no data (it is on the device {tensor.device.type!r})"
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        return f"is not a plain one (layout {tensor.layout}, {tensor.dtype})"
    if tensor.is_complex():
        return f"is complex ({tensor.dtype}), expected real numbers"
    # a view can claim more elements than its storage has bytes for; copying one would fill the memory
    repeats = any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
    if repeats or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        return f"claims {tensor.numel()} elements that the file does not hold (shape {list(tensor.shape)})"
    return None


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse NaN and infinite weights.

    Raises:
        CheckpointError: names the tensors.
    """
    bad = [name for name, t in tensors.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if bad:
        raise CheckpointError(f"{where} holds NaN or infinite values in {_some(bad)}")


def differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """What keeps ``found`` from being loaded as ``expected``: names, shapes, dtypes. Empty if nothing does."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    common = [name for name in expected if name in found]
    shapes = [
        f"{name} {list(found[name].shape)} instead of {list(expected[name].shape)}"
        for name in common
        if found[name].shape != expected[name].shape
    ]
    dtypes = [
        f"{name} {_dtype(found[name])} instead of {_dtype(expected[name])}"
        for name in common
        if found[name].dtype != expected[name].dtype
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("shape", shapes), ("dtype", dtypes))
    return [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds if names]


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(listed[:_LISTED]) + more


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
