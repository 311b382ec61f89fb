"""The few functions by which torch's pickles describe tensors, applied to descriptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from harness.weights._values import DTYPES, Other, Storage, StoredTensor, Value

__all__ = ["KNOWN", "Broken", "Global", "TypedStorage", "rebuilt", "storage_of"]

_MOST_DIMENSIONS = 64
_LARGEST = 1 << 62


class Broken(Exception):
    """Why a file's content makes no sense; becomes a `CheckpointError` that names the file."""


@dataclass(frozen=True)
class Global:
    """The dotted name of a class or function that a pickle refers to."""

    name: str


@dataclass(frozen=True)
class TypedStorage:
    """A storage, and what its elements are."""

    storage: Storage
    dtype: torch.dtype


def storage_of(identity: Value) -> Value:
    """What torch's ``("storage", type, key, location, elements)`` refers to."""
    if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
        return Other("an object kept elsewhere")
    _, kind, key, _, elements = identity[:5]
    name = kind.name.rpartition(".")[2].removesuffix("Storage") if isinstance(kind, Global) else ""
    if name not in DTYPES or type(key) is not str or not _size(elements) or identity[5:] not in ((), (None,)):
        return Other("a storage of an unknown type")
    dtype = DTYPES[name]
    return TypedStorage(Storage(key, elements, dtype.itemsize), dtype)


def rebuilt(function: Value, arguments: Value) -> Value:
    """What a call in a pickle would have made: a tensor's description, a plain dictionary or tuple, or an `Other`."""
    name = function.name if isinstance(function, Global) else "an unnamed object"
    rebuild = _REBUILDERS.get(name)
    if rebuild is None or type(arguments) is not tuple:
        return Other(f"an object of {name}")
    return rebuild(arguments)


def _size(value: Value) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _sizes(values: Value) -> tuple[int, ...]:
    if type(values) not in (tuple, list) or len(values) > _MOST_DIMENSIONS or not all(map(_size, values)):
        raise Broken("a tensor of impossible sizes")
    return tuple(values)


def _tensor(arguments: tuple[Value, ...], dtype: torch.dtype | None = None) -> Value:
    if len(arguments) < 4:
        raise Broken("a tensor without sizes")
    typed, offset, shape, stride = arguments[:4]
    if not isinstance(typed, TypedStorage):
        return Other("a tensor of an unknown type")
    shape, stride = _sizes(shape), _sizes(stride)
    if len(shape) != len(stride) or not _size(offset):
        raise Broken("a tensor of impossible sizes")
    return StoredTensor(typed.storage, dtype or typed.dtype, offset, shape, stride)


def _tensor_with_dtype(arguments: tuple[Value, ...]) -> Value:
    """As `_tensor`; the seventh argument says what the untyped bytes are."""
    named = arguments[6] if len(arguments) > 6 else None
    dtype = getattr(torch, named.name.removeprefix("torch."), None) if isinstance(named, Global) else None
    return _tensor(arguments, dtype) if isinstance(dtype, torch.dtype) else Other("a tensor of an unknown type")


def _first(arguments: tuple[Value, ...]) -> Value:
    plain = bool(arguments) and isinstance(arguments[0], StoredTensor)
    return arguments[0] if plain else Other("a tensor of an unknown type")


def _of_class(arguments: tuple[Value, ...]) -> Value:
    """``(function, class, its arguments, attributes)``; attributes are left out, other classes are not opened."""
    function, kind, inner = arguments[:3] if len(arguments) >= 3 else (None, None, None)
    plain = isinstance(kind, Global) and kind.name in _TENSOR_CLASSES
    nested = isinstance(function, Global) and function.name in _PLAIN
    if plain and nested:
        return rebuilt(function, inner)
    return Other(f"a tensor of {kind.name}" if isinstance(kind, Global) else "a tensor of an unknown type")


def _ordered(arguments: tuple[Value, ...]) -> Value:
    # Python 2 wrote the items as an argument
    pairs = arguments[0] if arguments and type(arguments[0]) is list else []
    return {pair[0]: pair[1] for pair in pairs if type(pair) in (tuple, list) and [*map(type, pair[:-1])] == [str]}


def _no(what: str) -> Callable[[tuple[Any, ...]], Value]:
    return lambda arguments: Other(what)


_PLAIN: dict[str, Callable[[tuple[Any, ...]], Value]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
}

_REBUILDERS: dict[str, Callable[[tuple[Any, ...]], Value]] = {
    **_PLAIN,
    "torch._tensor._rebuild_from_type_v2": _of_class,
    "torch._utils._rebuild_meta_tensor_no_storage": _no("a tensor that has no data"),
    "torch._utils._rebuild_sparse_tensor": _no("a sparse tensor"),
    "torch._utils._rebuild_qtensor": _no("a quantised tensor"),
    "torch._utils._rebuild_nested_tensor": _no("a nested tensor"),
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda arguments: {},
    **{f"{builtin}.{kind}": _no("a set") for builtin in ("builtins", "__builtin__") for kind in ("set", "frozenset")},
    "torch.Size": lambda arguments: _sizes(arguments[0]) if arguments else (),
}

KNOWN = frozenset(_REBUILDERS)
"""Names of the functions and classes whose results are described; all others give an `Other`."""

_TENSOR_CLASSES = frozenset(("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"))
