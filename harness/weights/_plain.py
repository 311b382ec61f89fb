"""Files of torch.save that hold tensors and plain values only, such as saved states."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from harness.errors import CheckpointError
from harness.weights._file import open_weights
from harness.weights._values import Other, StoredTensor, Value

__all__ = ["read_plain"]

_DEEPEST, _MOST = 50, 1_000_000


def read_plain(path: Path) -> Any:
    """What a file holds: tensors, numbers, texts, and lists, tuples and dictionaries of these.

    Raises:
        CheckpointError: it cannot be read, is damaged, or holds anything else.
    """
    with open_weights(path, safetensors_format=False) as file:
        if file.objects:
            raise CheckpointError(f"{path} holds Python objects, which were not opened")
        of_storage: dict[str, dict[str, StoredTensor]] = {}
        try:
            for stored in _tensors(file.value):
                of_storage.setdefault(stored.storage.key, {})[str(id(stored))] = stored
        except ValueError as error:
            raise CheckpointError(f"{path} {error}") from error
        read: dict[str, Tensor] = {}
        for tensors in of_storage.values():  # one storage after the other, so that little is in memory twice
            read |= file.read(tensors)
        return _filled(file.value, read)


def _tensors(value: Value) -> Iterator[StoredTensor]:
    """All tensors in a value, which may hold itself or the same part many times.

    Raises:
        ValueError: it is nested too deeply, has too many parts, or one that is no plain value.
    """
    level, seen = [value], 0
    for _ in range(_DEEPEST):
        inner: list[Value] = []
        for part in level:
            if isinstance(part, StoredTensor):
                yield part
            elif isinstance(part, dict):
                inner += part.values()
            elif isinstance(part, list | tuple):
                inner += part
            elif not isinstance(part, bool | int | float | str | None):
                what = part.what if isinstance(part, Other) else type(part).__name__
                raise ValueError(f"holds {what}, which no saved state does")
        seen += len(inner)
        if not inner or seen > _MOST:
            break
        level = inner
    if inner:
        raise ValueError("has more parts than any saved state, or is nested deeper")


def _filled(value: Value, read: dict[str, Tensor]) -> Any:
    if isinstance(value, StoredTensor):
        return read[str(id(value))]
    if isinstance(value, dict):
        return {name: _filled(part, read) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_filled(part, read) for part in value)
    return value
