"""Opening a file of weights, and reading those of its tensors that are wanted."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Protocol

import torch
from torch import Tensor

from harness.errors import CheckpointError
from harness.util.text import printable
from harness.weights._archive import ARCHIVE, Archive
from harness.weights._legacy import Legacy
from harness.weights._opcodes import Unpickled
from harness.weights._rebuild import Broken
from harness.weights._safetensors import Safetensors
from harness.weights._values import Storage, StoredTensor, Value

__all__ = ["LARGEST", "WeightsFile", "open_regular", "open_weights"]

LARGEST = 16 << 30
"""A larger file is refused before anything of it is read."""

_METADATA = "harness"
_PICKLE = b"\x80"


class _Source(Protocol):
    content: Unpickled

    def read(self, storage: Storage, start: int, stop: int) -> bytearray: ...


class WeightsFile:
    """An opened file of weights.

    Attributes:
        path: where it is. value: what it holds, with tensors described and not yet read. metadata: what this
            package wrote about the weights, empty in files of others. objects: names of the classes and functions
            that the file refers to, none of which was used. source: where its bytes come from.
    """

    def __init__(self, path: Path, source: _Source, metadata: Mapping[str, Any]) -> None:
        self.path = path
        self.value: Value = source.content.value
        self.metadata = metadata
        self.objects = source.content.objects
        self.source = source

    def read(self, tensors: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
        """The tensors with their numbers, each with memory of its own.

        Raises:
            CheckpointError: one claims more than the file holds, is no plain tensor, or is damaged.
        """
        for name, tensor in tensors.items():
            if tensor.defect:
                raise CheckpointError(f"{self.path}: the tensor {printable(name)!r} {tensor.defect}")
        spans: dict[str, tuple[int, int]] = {}
        for tensor in tensors.values():
            start, stop = tensor.span
            first, last = spans.get(tensor.storage.key, (start, stop))
            spans[tensor.storage.key] = min(first, start), max(last, stop)
        held: dict[str, Tensor] = {}
        content: dict[str, bytearray] = {}
        for name, tensor in tensors.items():
            key = tensor.storage.key
            if key not in content:
                try:
                    content[key] = self.source.read(tensor.storage, *spans[key])
                except Broken as error:
                    raise CheckpointError(f"{self.path} is {printable(error)}") from error
            held[name] = _filled(tensor, content[key], spans[key][0])
        return held


def _filled(tensor: StoredTensor, content: bytearray, begin: int) -> Tensor:
    if tensor.numel == 0:
        return torch.empty(tensor.shape, dtype=tensor.dtype)
    start, stop = tensor.span
    numbers = torch.frombuffer(content, dtype=torch.uint8)[start - begin : stop - begin]
    view = numbers.clone().view(tensor.dtype)
    # in the layout that it was saved in: arithmetic rounds otherwise in another one
    return view.as_strided(tensor.shape, tensor.stride).clone(memory_format=torch.preserve_format)


@contextmanager
def open_regular(path: Path, *, largest: int) -> Iterator[tuple[BufferedReader, int]]:
    """A file and its size; a pipe or device is not waited for.

    Raises:
        CheckpointError: it cannot be opened, is no plain file, is empty or larger than ``largest`` bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise CheckpointError(f"{path} is no file but a folder, pipe or device")
    with os.fdopen(descriptor, "rb") as stream:
        if facts.st_size == 0:
            raise CheckpointError(f"{path} is empty")
        if facts.st_size > largest:
            raise CheckpointError(f"{path} has {facts.st_size} bytes, more than the {largest} that are read")
        yield stream, facts.st_size


@contextmanager
def open_weights(path: Path, *, safetensors_format: bool | None = None) -> Iterator[WeightsFile]:
    """Find out what a file holds. Nothing in it is ever run, and only what is then wanted is read.

    Args:
        safetensors_format: whether it is in that format; by default as its name ends.

    Raises:
        CheckpointError: it cannot be read, is damaged, no file of weights, or has the same name twice.
    """
    if safetensors_format is None:
        safetensors_format = path.suffix == ".safetensors"
    with open_regular(path, largest=LARGEST) as (stream, size):
        try:
            source, metadata = _opened(stream, size, safetensors_format)
        except Broken as error:
            raise CheckpointError(
                f"{path} is {printable(error)}; save weights with torch.save(model.state_dict(), FILE)"
            ) from error
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
        repeated = source.content.repeated
        if repeated:
            named = ", ".join(printable(name) for name in repeated[:4])
            raise CheckpointError(f"{path} holds the same name twice ({named}), so what it means is not certain")
        yield WeightsFile(path, source, metadata)


def _opened(stream: IO[bytes], size: int, safetensors_format: bool) -> tuple[_Source, Mapping[str, Any]]:
    if safetensors_format:
        held = Safetensors(stream, size)
        text = held.metadata.get(_METADATA)
        try:
            metadata = json.loads(text) if type(text) is str else {}
        except (ValueError, RecursionError) as error:
            raise Broken("a file whose metadata is damaged") from error
        return held, metadata if type(metadata) is dict else {}
    head = stream.read(len(ARCHIVE))
    source: _Source
    if head == ARCHIVE:
        source = Archive(stream, size)
    elif head.startswith(_PICKLE):
        source = Legacy(stream, size)
    else:
        raise Broken("no file of weights")
    value = source.content.value
    metadata = value.get("metadata") if type(value) is dict else None
    return source, metadata if type(metadata) is dict else {}
