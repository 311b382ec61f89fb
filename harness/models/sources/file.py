"""FILE.py:FACTORY, a function in a file of your own that returns a torch module."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.errors import InvalidInput
from harness.models._base import Shape
from harness.models.norm_layers import NormLayer, get
from harness.models.sources._base import OWN, Foreign
from harness.util.user_file import from_file, importable, one_line

__all__ = ["file"]


def file(name: str, classes: int, shape: Shape, norm: NormLayer | None) -> Foreign:
    """Call the factory that ``FILE.py:FACTORY`` names with those of classes, shape and norm_layer that it takes.

    Modules beside the file can be imported by it. ``norm_layer`` is a `NormLayer`, called with the
    channels; where none is given, a factory with a default keeps it.

    Raises:
        UnknownName: the file defines nothing of that name.
        InvalidInput: no such file, it fails to run, or the factory cannot be called, fails or returns
            something else than a torch module.
    """
    with torch.random.fork_rng(devices=[]):
        # a file is run once, so what it draws then must be the same whenever that is, and moves no other draw
        torch.default_generator.manual_seed(0)
        factory = from_file(name, "factory")
    if isinstance(factory, nn.Module) or not callable(factory):
        raise InvalidInput(f"{name} must be a function or class that makes a network, got a {type(factory).__name__}")
    arguments = _arguments(factory, name, {"classes": classes, "shape": shape}, norm)
    # a factory may import what lies beside its file
    with importable(Path(name.rpartition(":")[0]).expanduser().resolve().parent):
        try:
            network = factory(**arguments)
        except (Exception, SystemExit) as error:
            raise InvalidInput(f"{name} fails when it is called: {one_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise InvalidInput(f"{name} must return a torch.nn.Module, got {type(network).__name__}")
    given = arguments.get("norm_layer")
    return Foreign(network, given.name if isinstance(given, NormLayer) else OWN)


def _arguments(
    factory: Callable[..., Any], label: str, offered: dict[str, Any], norm: NormLayer | None
) -> dict[str, Any]:
    try:
        taken = inspect.signature(factory).parameters
    except ValueError as error:
        raise InvalidInput(f"{label} does not say which arguments it takes: {error}") from error
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    norm_parameter = taken.get("norm_layer")
    if norm is not None and (norm_parameter is not None or anything):
        offered = {**offered, "norm_layer": norm}
    elif norm_parameter is not None and norm_parameter.default is norm_parameter.empty:
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
