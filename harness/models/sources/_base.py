"""What a source of networks is, and what several of them share."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import ModuleType
from typing import NamedTuple

from torch import nn

from harness.errors import HarnessError, InvalidInput, nearest
from harness.models._base import Normalization, Recipe

__all__ = ["OWN", "Foreign", "library", "need_colour", "similar"]

OWN = "own"
"""Stands for the norm layers that an architecture has by itself."""

_SHOWN = 12


class Foreign(NamedTuple):
    """A network that was not written here.

    Attributes:
        norm_layer: the name of the one that it was built with.
        call: how its factory was called, for somebody whose weights do not fit; empty where that is of no use.
        usual_normalization: what its source does to images in [0, 1] first, unless it is told otherwise.
        recipe: how it is made without this package.
    """

    network: nn.Module
    norm_layer: str = OWN
    call: str = ""
    usual_normalization: Normalization | None = None
    recipe: Recipe | None = None


def library(name: str) -> ModuleType:
    """The module ``name`` of a package that may be missing.

    Raises:
        HarnessError: it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise HarnessError(
            f"{package} could not be imported ({error}); install it with: pip install {package}"
        ) from error


def need_colour(architecture: str, channels: int) -> None:
    """Refuse images that are not of 3 channels.

    Raises:
        InvalidInput: naming the architecture and the channels.
    """
    if channels != 3:
        raise InvalidInput(f"{architecture} takes images of 3 channels, got {channels}")


def similar(name: str, known: Iterable[str]) -> list[str]:
    """The names to show where there are hundreds: those most like ``name``."""
    return nearest(name, known, count=_SHOWN, cutoff=0)
