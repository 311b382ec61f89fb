"""A model as the rest of the package knows it: normalisation, then a network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.errors import InvalidInput

__all__ = ["Model", "Network", "Normalization", "Normalize", "Recipe", "Shape"]

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""


class Recipe(NamedTuple):
    """How a network is made in Python without this package.

    Attributes:
        source: what comes before, such as imports and definitions. expression: what makes the network.
    """

    source: str
    expression: str


class Network(nn.Module):
    """Base of the registered architectures.

    Attributes:
        groups: ordered names of the layer groups -> prefixes of their submodules; the last is "head".
    """

    groups: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Normalization:
    """Per channel, what is subtracted from an image in [0, 1] and what the rest is divided by.

    Raises:
        InvalidInput: not one finite mean and one finite, positive deviation a channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _numbers("mean", self.mean))
        object.__setattr__(self, "std", _numbers("std", self.std))
        if len(self.mean) != len(self.std):
            raise InvalidInput(
                f"a normalization has as many means as deviations; got {len(self.mean)} and {len(self.std)}"
            )
        if min(self.std) <= 0:
            raise InvalidInput(f"a normalization's deviations are positive, got {list(self.std)}")

    def close_to(self, other: Normalization) -> bool:
        """Whether both are the same up to the digits that people write down."""
        pairs = zip((*self.mean, *self.std), (*other.mean, *other.std), strict=True)
        return len(self.mean) == len(other.mean) and all(math.isclose(a, b, rel_tol=2e-3) for a, b in pairs)


def _numbers(what: str, values: Iterable[float]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise InvalidInput(f"a normalization's {what} is one number a channel, got {values!r}") from None
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise InvalidInput(f"a normalization's {what} is one finite number a channel, got {list(numbers)}")
    return numbers


class Normalize(nn.Module):
    """``(x - mean) / std`` per channel; its constants follow the model but are not in the state dict."""

    mean: Tensor
    std: Tensor

    def __init__(self, normalization: Normalization) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(normalization.mean).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normalization.std).reshape(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Model(nn.Module):
    """A network behind its normalisation: images in [0, 1], ``[n, *shape]``, to logits ``[n, classes]``.

    Attributes:
        normalize: the normalisation as a module (the identity where there is none); holds no state.
        network: the architecture; its state dict is what a checkpoint holds.
        architecture, classes, shape, normalization: what it was built from.
        norm_layer: name of the norm layer that the network has; "own" where it is not one of this package's.
        source_sha256: hash of the source text of an architecture from a file of one's own.
        arguments: of the architecture's constructor, beside the above.
        call: how that was called, as a sentence for errors; empty where nobody could have called it otherwise.
        usual_normalization: what the architecture's source does to images, where that is known.
        recipe: how the network is made without this package, where its source says so.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        architecture: str,
        classes: int,
        shape: Shape,
        norm_layer: str,
        normalization: Normalization | None,
        source_sha256: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        call: str = "",
        usual_normalization: Normalization | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        super().__init__()
        self.normalize = nn.Identity() if normalization is None else Normalize(normalization)
        self.network = network
        self.architecture = architecture
        self.classes = classes
        self.shape = shape
        self.norm_layer = norm_layer
        self.normalization = normalization
        self.source_sha256 = source_sha256
        self.arguments = dict(arguments or {})
        self.call = call
        self.usual_normalization = usual_normalization
        self.recipe = recipe

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(self.normalize(x))
        return logits
