"""A function as a module, so that any callable can be attacked."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from harness.errors import InvalidInput

__all__ = ["Function", "as_module"]


class Function(nn.Module):
    """A callable from images to logits.

    The modules that it uses, as far as they can be seen (the owner of a method, what a closure or a partial holds), are
    submodules: they decide its device and the hash of its weights.

    Attributes:
        label: how it is called in its source. code_sha256: of its compiled code, where it has any.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.used = nn.ModuleList(_modules(function))
        self.label = (
            f"{getattr(function, '__module__', None)}.{getattr(function, '__qualname__', repr(type(function)))}"
        )
        code = getattr(_bare(function), "__code__", None)
        described = b"" if code is None else code.co_code + repr((code.co_names, _constants(code))).encode()
        self.code_sha256 = hashlib.sha256(described).hexdigest() if code is not None else None

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def train(self, mode: bool = True) -> Function:
        """The mode of what it uses belongs to the caller."""
        self.training = mode
        return self


def as_module(model: object) -> nn.Module:
    """A module as it is, any other callable as a `Function`.

    Raises:
        InvalidInput: neither.
    """
    if isinstance(model, nn.Module):
        return model
    if isinstance(model, type) or not callable(model):
        kind = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        hint = " (build the network and load these weights into it)" if isinstance(model, dict) else ""
        raise InvalidInput(f"a model is a torch module, or a function from images to logits, got {kind}{hint}")
    return Function(model)


def _bare(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__func__", function)


def _constants(code: Any) -> list[str]:
    # inner functions are known by their own code, not by where they lie
    return [inner.co_code.hex() if hasattr(inner, "co_code") else repr(inner) for inner in code.co_consts]


def _modules(function: Any) -> Iterator[nn.Module]:
    seen: list[nn.Module] = []
    for value in _reached(function):
        if isinstance(value, nn.Module) and not any(value is other for other in seen):
            seen.append(value)
            yield value


def _reached(function: Any) -> Iterator[Any]:
    if isinstance(function, functools.partial):
        yield from (*function.args, *function.keywords.values())
        yield from _reached(function.func)
        return
    yield getattr(function, "__self__", None)
    bare = getattr(function, "__func__", function)
    for cell in getattr(bare, "__closure__", None) or ():
        yield cell.cell_contents
    names = getattr(getattr(bare, "__code__", None), "co_names", ())
    known = getattr(bare, "__globals__", {})
    yield from (known[name] for name in names if name in known)
