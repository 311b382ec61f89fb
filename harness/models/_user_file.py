"""A user's own architecture: a factory in a Python file."""

from __future__ import annotations

import inspect
import runpy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from harness.errors import InvalidInput, UnknownName
from harness.models._base import Shape
from harness.models.norm_layers import NormLayer, get

__all__ = ["from_file", "one_line"]


def from_file(file: str, name: str, classes: int, shape: Shape, norm: NormLayer | None) -> tuple[nn.Module, str | None]:
    """Run ``file`` and call its factory ``name`` with those of classes, shape and norm_layer that it takes.

    Modules beside the file can be imported by it. ``norm_layer`` is a `NormLayer`, called with the
    channels; where none was asked for, a factory with a default keeps it.

    Returns:
        The network, and the name of the norm layer that was handed in (None when none was).

    Raises:
        UnknownName: the file defines nothing of that name.
        InvalidInput: no such file, it fails to run, or the factory cannot be called, fails or returns
            something else than a torch module.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise InvalidInput(f"there is no file {file} to take the architecture {name!r} from")
    with _importable(path.resolve().parent):
        try:
            # a name of its own, so that `if __name__ == "__main__"` and installed modules stay out of it
            defined = runpy.run_path(str(path), run_name=f"_architecture_file_{path.stem}")
        except (Exception, SystemExit) as error:
            raise InvalidInput(f"{file} fails when it is run: {one_line(error)}") from error
        factory = _factory(defined, file, name)
        arguments = _arguments(factory, f"{file}:{name}", {"classes": classes, "shape": shape}, norm)
        try:
            network = factory(**arguments)
        except (Exception, SystemExit) as error:
            raise InvalidInput(f"{file}:{name} fails when it is called: {one_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise InvalidInput(f"{file}:{name} must return a torch.nn.Module, got {type(network).__name__}")
    injected = arguments.get("norm_layer")
    return network, injected.name if isinstance(injected, NormLayer) else None


def _factory(defined: dict[str, Any], file: str, name: str) -> Callable[..., Any]:
    if name not in defined:
        own = (key for key, value in defined.items() if getattr(value, "__module__", None) == defined["__name__"])
        raise UnknownName(f"factory in {file}", name, own)
    factory = defined[name]
    if isinstance(factory, nn.Module) or not callable(factory):
        raise InvalidInput(
            f"{file}:{name} must be a function or class that makes a network, got a {type(factory).__name__}"
        )
    return factory  # type: ignore[no-any-return]


def _arguments(
    factory: Callable[..., Any], label: str, offered: dict[str, Any], norm: NormLayer | None
) -> dict[str, Any]:
    try:
        taken = inspect.signature(factory).parameters
    except ValueError as error:
        raise InvalidInput(f"{label} does not say which arguments it takes: {error}") from error
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    wanted = taken.get("norm_layer")
    if norm is not None and (wanted is not None or anything):
        offered = {**offered, "norm_layer": norm}
    elif wanted is not None and wanted.default is wanted.empty:
        offered = {**offered, "norm_layer": get("batch")}
    by_name = {key for key, parameter in taken.items() if parameter.kind in _BY_NAME}
    missing = [
        key
        for key, parameter in taken.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and (key not in offered or key not in by_name)
    ]
    if missing:
        raise InvalidInput(
            f"{label} needs {', '.join(missing)}, but a factory gets classes, shape and norm_layer, by name"
        )
    return {key: value for key, value in offered.items() if anything or key in by_name}


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """``folder`` in front of the import path, as Python puts the folder of a script that it runs."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def one_line(error: BaseException) -> str:
    """Kind and text of somebody else's error, without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())
