"""FILE.py:FACTORY, a function in a file of your own that returns a torch module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.errors import InvalidInput
from harness.models._base import Recipe, Shape
from harness.models.norm_layers import NormLayer
from harness.models.sources._base import OWN, Foreign
from harness.models.sources._calls import Call, call_of
from harness.util.literals import listed_arguments
from harness.util.trust import local_sources
from harness.util.user_file import from_file, importable, one_line

__all__ = ["file"]


def file(name: str, classes: int, shape: Shape, norm: NormLayer | None, /, **arguments: Any) -> Foreign:
    """Call the factory that ``FILE.py:FACTORY`` names with ``arguments``, and with classes, image shape and norm layer
    where it takes them under a usual name (`harness.models.sources._calls`).

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
    call = call_of(factory, name, classes=classes, shape=shape, norm=norm, given=arguments)
    # a factory may import what lies beside its file
    with importable(Path(name.rpartition(":")[0]).expanduser().resolve().parent):
        try:
            network = factory(**call.arguments)
        except (Exception, SystemExit) as error:
            raise InvalidInput(f"{name} fails when it is called: {one_line(error)} ({call})") from error
    if not isinstance(network, nn.Module):
        raise InvalidInput(f"{name} must return a torch.nn.Module, got {type(network).__name__}")
    given = call.arguments.get("norm_layer")
    norm_layer = given.name if isinstance(given, NormLayer) else OWN
    return Foreign(network, norm_layer, str(call), recipe=_recipe(name, call))


def _recipe(name: str, call: Call) -> Recipe | None:
    """The file's own text; None where it needs modules beside it, or objects of this package."""
    path, _, factory = name.rpartition(":")
    sources = local_sources(path)
    if len(sources) > 1 or any(isinstance(value, NormLayer) for value in call.arguments.values()):
        return None
    (text,) = sources.values()
    return Recipe(text.decode("utf-8", "replace"), f"{factory}({listed_arguments(call.arguments)})")
