"""A model as the rest of the package knows it: normalisation, then a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.models._normalization import Normalization

__all__ = ["Model", "Network", "Normalize", "Recipe", "Shape"]

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
