"""torchvision:NAME, a classifier of torchvision.models."""

from __future__ import annotations

from typing import Any

from harness.errors import UnknownName
from harness.models._base import Recipe, Shape
from harness.models._normalization import Normalization
from harness.models.norm_layers import NormLayer
from harness.models.sources._base import Complete, Foreign, fetching, library, need_colour, similar
from harness.util.literals import listed_arguments

__all__ = ["complete", "known_names", "torchvision"]

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What the transforms of all its classifiers' weights subtract and divide by."""


def known_names() -> list[str]:
    """All classifiers that torchvision has."""
    models = library("torchvision.models")
    return list(models.list_models(module=models))


def complete(name: str) -> Complete:
    """The classifier ``name`` with torchvision's default weights for it, which are fetched where they are not there."""
    models = library("torchvision.models")
    known = models.list_models(module=models)
    if name not in known:
        raise UnknownName("torchvision architecture", name, similar(name, known))
    weights = models.get_model_weights(name).DEFAULT
    with fetching(f"torchvision:{name}"):
        network = models.get_model(name, weights=weights)
    (size,) = {int(side) for side in weights.transforms().crop_size}
    return Complete(network, len(weights.meta["categories"]), (3, size, size), Normalization(*_IMAGENET))


def torchvision(name: str, classes: int, shape: Shape, norm: NormLayer | None, /, **arguments: Any) -> Foreign:
    """The classifier ``name`` without weights from elsewhere; ``arguments`` go to its constructor."""
    models = library("torchvision.models")
    known = models.list_models(module=models)
    if name not in known:
        raise UnknownName("torchvision architecture", name, similar(name, known))
    need_colour(f"torchvision:{name}", shape[0])
    chosen = {"num_classes": classes} | arguments
    network = models.get_model(name, weights=None, **chosen)
    recipe = Recipe("import torchvision\n", f"torchvision.models.get_model({name!r}, {listed_arguments(chosen)})")
    return Foreign(network, usual_normalization=Normalization(*_IMAGENET), recipe=recipe)
