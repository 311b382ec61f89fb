"""Files in the safetensors format: a header in JSON, and the tensors one after the other."""

from __future__ import annotations

import json
import math
from typing import IO, Any

import torch

from harness.weights._opcodes import Unpickled
from harness.weights._rebuild import Broken
from harness.weights._values import Storage, StoredTensor

__all__ = ["Safetensors"]

_LARGEST_HEADER = 10 << 20
_LENGTH = 8
_MOST_DIMENSIONS = 64
_MOST_TENSORS = 20_000
_METADATA = "__metadata__"
_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}


class Safetensors:
    """An opened file.

    Attributes:
        content: its tensors by name, as a file of torch.save would hold them. metadata: texts by name.
    """

    def __init__(self, stream: IO[bytes], size: int) -> None:
        stream.seek(0)
        length = int.from_bytes(stream.read(_LENGTH), "little")
        if length > min(size - _LENGTH, _LARGEST_HEADER):
            raise Broken(f"a damaged file, or one whose header is larger than {_LARGEST_HEADER >> 20} MiB")
        repeated: list[str] = []

        def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            table: dict[str, Any] = {}
            for name, value in pairs:
                if name in table:
                    repeated.append(name)
                table[name] = value
            return table

        try:
            header = json.loads(stream.read(length), object_pairs_hook=once)
        except (ValueError, RecursionError) as error:
            raise Broken("a damaged file (its header is no JSON)") from error
        if type(header) is not dict:
            raise Broken("a damaged file (its header is no table)")
        metadata = header.pop(_METADATA, {})
        if len(header) > _MOST_TENSORS:
            raise Broken(f"a file of {len(header):,} tensors, more than the {_MOST_TENSORS:,} that are read")
        self.metadata: dict[str, Any] = metadata if type(metadata) is dict else {}
        self._stream = stream
        self._begin = _LENGTH + length
        self._places: dict[str, int] = {}
        tensors = {name: self._tensor(name, facts) for name, facts in header.items()}
        self._check_layout(tensors, size - self._begin)
        self.content = Unpickled(tensors, tuple(repeated), (), {})

    def read(self, storage: Storage, start: int, stop: int) -> bytearray:
        """Bytes ``start`` to ``stop`` of a tensor."""
        self._stream.seek(self._begin + self._places[storage.key] + start)
        return bytearray(self._stream.read(stop - start))

    def _tensor(self, name: str, facts: Any) -> StoredTensor:
        facts = facts if type(facts) is dict else {}
        dtype = _DTYPES.get(str(facts.get("dtype")))
        shape, offsets = facts.get("shape"), facts.get("data_offsets")
        if dtype is None or not _sizes(shape, _MOST_DIMENSIONS) or not _sizes(offsets, 2) or len(offsets) != 2:
            raise Broken("a damaged file (a tensor in its header has no known type, shape or place)")
        begin, end = offsets
        elements = math.prod(shape)
        if end - begin != elements * dtype.itemsize:
            raise Broken("a damaged file (a tensor in its header has another size than its shape needs)")
        self._places[name] = begin
        stride = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        return StoredTensor(Storage(name, elements, dtype.itemsize), dtype, 0, tuple(shape), stride)

    def _check_layout(self, tensors: dict[str, StoredTensor], size: int) -> None:
        """The format allows neither gaps nor overlaps."""
        at = 0
        for name in sorted(tensors, key=lambda name: (self._places[name], tensors[name].storage.nbytes)):
            if self._places[name] != at:
                raise Broken("a damaged file (its tensors overlap, or leave gaps)")
            at += tensors[name].storage.nbytes
        if at != size:
            raise Broken("a file that is cut short, or has something behind its end")


def _sizes(values: Any, most: int) -> bool:
    return type(values) is list and len(values) <= most and all(type(v) is int and 0 <= v < 1 << 62 for v in values)
