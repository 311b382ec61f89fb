"""Networks from elsewhere, all with fresh weights: one file a source, called by its name before the colon.

A source is a function ``(name, classes, shape, norm) -> Foreign``: the network, and the name of the norm layer that it
was given where it takes one. A source whose networks have arguments of their own takes them as ``**arguments``. A
source of networks with weights has a function ``complete``, from the name to a `Complete`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError, InvalidInput, UnknownName
from harness.models.sources._base import OWN, Complete, Foreign
from harness.util import plugins
from harness.util.literals import listed_arguments
from harness.util.user_file import is_in_file, one_line

if TYPE_CHECKING:
    from harness.models._base import Shape
    from harness.models.norm_layers import NormLayer

__all__ = [
    "OWN",
    "Complete",
    "Foreign",
    "complete",
    "foreign",
    "forms",
    "found_elsewhere",
    "is_complete",
    "is_foreign",
]

_FILE = "file"
_SUFFIXES = {".onnx": "onnx", ".pt2": "pt2"}
"""Files that are known by their names -> the source that reads them."""


def forms() -> dict[str, str]:
    """How networks of each source are named -> what they are."""
    found: dict[str, str] = {}
    for source, text in plugins.summaries(__name__).items():
        form, comma, about = text.partition(", ")
        found |= {form: about.rstrip(".")} if comma and ":" in form else {f"{source}:NAME": text}
    return found


def found_elsewhere(name: str) -> list[str]:
    """How a name is written that a source has, for somebody who left out where it is from.

    Only libraries that are installed are asked.
    """
    found = []
    for module in pkgutil.iter_modules(__path__):
        known = getattr(importlib.import_module(f"{__name__}.{module.name}"), "known_names", None)
        with suppress(HarnessError):
            if known is not None and name in known():
                found.append(f"{module.name}:{name}")
    return found


def is_foreign(architecture: str) -> bool:
    """Whether the name says where a network comes from."""
    return ":" in architecture or architecture.endswith(".py")


def is_complete(name: str) -> bool:
    """Whether a name means a network together with its weights: ``onnx:FILE``, ``FILE.pt2``, ``timm:NAME``, ..."""
    return _source_of(name) is not None


def complete(name: str) -> Complete:
    """The network with weights that a name means.

    Raises:
        UnknownName, InvalidInput: it is not there, or cannot be used.
        HarnessError: a package is missing, or weights cannot be fetched.
    """
    found = _source_of(name)
    if found is None:
        raise InvalidInput(f"{name} names no network with its weights")
    source, rest = found
    made: Complete = importlib.import_module(f"{__name__}.{source}").complete(rest)
    return made


def _source_of(name: str) -> tuple[str, str] | None:
    """The source of complete networks that a name begins with, or that reads files of its suffix, and the rest."""
    source, colon, rest = name.partition(":")
    by_suffix = next((known for suffix, known in _SUFFIXES.items() if name.endswith(suffix)), None)
    if not colon and by_suffix is not None:
        return by_suffix, name
    if not colon or not plugins.is_own(__name__, source):
        return None
    return (source, rest) if hasattr(importlib.import_module(f"{__name__}.{source}"), "complete") else None


def foreign(
    architecture: str, classes: int, shape: Shape, norm: NormLayer | None, arguments: Mapping[str, Any]
) -> Foreign:
    """The network that ``SOURCE:NAME`` or ``FILE.py:FACTORY`` names, with fresh weights.

    Args:
        norm: the norm layer to use, None for the network's own.
        arguments: more arguments of the network's constructor.

    Raises:
        UnknownName: no such source, or no such name in it.
        InvalidInput: a norm layer, image, number of classes or argument that the network cannot have, or a factory
            that fails.
    """
    from harness.models.sources._calls import own_arguments

    if architecture.endswith(".py"):
        raise InvalidInput(f"an architecture in a file is written FILE.py:FACTORY, got {architecture!r}")
    source, _, name = architecture.partition(":")
    if is_in_file(architecture):
        source, name = _FILE, architecture
    elif source == _FILE or not plugins.is_member(__name__, source):
        raise UnknownName("source of architectures", source, (form.partition(":")[0] for form in forms()))
    function = plugins.lookup(__name__, source, "source", Callable)
    own_arguments(function, f"the source {source}", arguments)
    try:
        built: Foreign = function(name, classes, shape, norm, **arguments)
    except HarnessError:
        raise
    except Exception as error:
        raise InvalidInput(
            f"{architecture} cannot be built for {classes} classes and images of shape {tuple(shape)}"
            f"{f' with {listed_arguments(arguments)}' if arguments else ''}: {one_line(error)}"
        ) from error
    if norm is not None and built.norm_layer == OWN and not (norm.name == "batch" and _has_batch_norm(built)):
        raise InvalidInput(f"{architecture} has norm layers of its own: expected norm layer {OWN!r}, got {norm.name!r}")
    return built


def _has_batch_norm(built: Foreign) -> bool:
    from torch.nn.modules.batchnorm import _BatchNorm

    return any(isinstance(module, _BatchNorm) for module in built.network.modules())
