"""What a file of weights holds, before any number of it is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["DTYPES", "Other", "Storage", "StoredTensor", "Value", "kind_of"]

Value = Any
"""A plain Python value, a dictionary or list of values, a `StoredTensor` or an `Other`."""

DTYPES = {
    "Bool": torch.bool,
    "Byte": torch.uint8,
    "Char": torch.int8,
    "Short": torch.int16,
    "Int": torch.int32,
    "Long": torch.int64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Float": torch.float32,
    "Double": torch.float64,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
}
"""torch's names of storages (``FloatStorage``) -> what their elements are."""


@dataclass(frozen=True)
class Storage:
    """A run of bytes in the file that one or more tensors are views of."""

    key: str
    elements: int
    itemsize: int

    @property
    def nbytes(self) -> int:
        """How many bytes it has."""
        return self.elements * self.itemsize


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the file describes it. Offset and strides count elements of ``dtype``."""

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        """How many elements it claims."""
        return math.prod(self.shape)

    @property
    def span(self) -> tuple[int, int]:
        """First byte of the storage that belongs to it, and the one after the last."""
        if self.numel == 0:
            return 0, 0
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.stride, strict=True))
        return self.offset * self.dtype.itemsize, (last + 1) * self.dtype.itemsize

    @property
    def defect(self) -> str | None:
        """What keeps it from being read as a plain tensor of numbers; None if nothing does."""
        if self.dtype.is_complex:
            return f"is complex ({self.dtype}), expected real numbers"
        start, stop = self.span
        # a view can claim more elements than its storage has bytes for; copying one would fill the memory
        if stop > self.storage.nbytes or self.numel * self.dtype.itemsize > stop - start:
            return f"claims {self.numel} elements that the file does not hold (shape {list(self.shape)})"
        return None


@dataclass(frozen=True)
class Other:
    """Something that was not opened: an object of a class, or a tensor that holds no plain numbers."""

    what: str


def kind_of(value: Value) -> str:
    """What a value is, in a few words."""
    if isinstance(value, Other):
        return value.what
    return "a tensor" if isinstance(value, StoredTensor) else f"a value of type {type(value).__name__}"
