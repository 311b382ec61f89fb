"""What a source of networks is, and what several of them share."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import HarnessError, InvalidInput, nearest

if TYPE_CHECKING:
    from torch import nn

    from harness.models._base import Recipe, Shape
    from harness.models._normalization import Normalization

__all__ = ["OWN", "Complete", "Foreign", "agreeing", "fetching", "library", "need_colour", "similar"]

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
        source_sha256: hash of the file that says what it computes; None where its name says that.
    """

    network: nn.Module
    norm_layer: str = OWN
    call: str = ""
    usual_normalization: Normalization | None = None
    recipe: Recipe | None = None
    source_sha256: str | None = None


class Complete(NamedTuple):
    """A network that comes with its weights, and says what it takes and returns.

    Attributes:
        classes: how many it knows. shape: of its images. normalization: what has to be done to images in [0, 1] first.
        file: where it was read from; None where it is no file of the user's.
    """

    network: nn.Module
    classes: int
    shape: Shape
    normalization: Normalization | None
    file: Path | None = None


def agreeing(complete: Complete, architecture: str, classes: int, shape: Shape) -> Foreign:
    """A complete network as one that was asked for.

    Raises:
        InvalidInput: another number of classes or another image shape was asked for.
    """
    if (complete.classes, tuple(complete.shape)) != (classes, tuple(shape)):
        raise InvalidInput(
            f"{architecture} knows {complete.classes} classes of images of shape {list(complete.shape)}, not {classes} "
            f"of {list(shape)}"
        )
    if complete.file is None:
        return Foreign(complete.network)
    with complete.file.open("rb") as file:
        return Foreign(complete.network, source_sha256=hashlib.file_digest(file, "sha256").hexdigest())


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


@contextmanager
def fetching(name: str) -> Iterator[None]:
    """Whatever keeps a library from getting weights, as one sentence.

    Raises:
        HarnessError: anything that was raised inside.
    """
    try:
        yield
    except Exception as error:  # errors of the library, of its transport and of the system
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise HarnessError(
            f"the weights of {name} are not on this machine and could not be fetched ({reason}): register a file of "
            f"them with 'harness import FILE --name NAME --architecture {name}'"
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
