"""Building a model by the name of its architecture."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from harness.errors import InvalidInput, UnknownName
from harness.models import norm_layers
from harness.models._base import Model, Shape
from harness.models._normalization import Normalization
from harness.models.norm_layers import NormLayer
from harness.models.sources import OWN, Foreign, foreign, forms, found_elsewhere, is_foreign
from harness.models.sources._calls import own_arguments
from harness.util import plugins
from harness.util.literals import checked_arguments
from harness.util.source_text import source_sha256

__all__ = ["build", "names"]

_FAMILY = "harness.models"


def names() -> tuple[str, ...]:
    """The registered architectures; `forms` says how to name others."""
    return plugins.members(_FAMILY)


def build(
    architecture: str,
    *,
    classes: int,
    shape: Shape,
    norm_layer: str = OWN,
    normalization: Normalization | None = None,
    arguments: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> Model:
    """A model with fresh weights, in training mode, on the CPU.

    Args:
        architecture: a registered name, or one of the `forms` of others.
        classes: number of classes, at least 2.
        shape: channels, height and width of the images.
        norm_layer: a registered norm layer, or "own" for what the architecture has by itself.
        normalization: what to do to images in [0, 1] first; None where the network takes them as they are.
        arguments: more arguments of the network's constructor: text, numbers, truth values, lists of such.
        seed: of the starting weights; the state of torch's generators is left as it was. None draws the
            weights from torch's global generator.

    Raises:
        UnknownName: no such architecture, source or norm layer.
        InvalidInput: classes, shape, normalization, norm layer or arguments that the architecture cannot have, or
            a user's file that fails.
    """
    channels = _checked(classes, shape)
    if normalization is not None and len(normalization.mean) != channels:
        raise InvalidInput(
            f"the normalization has {len(normalization.mean)} channels and the images have {channels}; "
            "give one mean and one deviation a channel"
        )
    norm = None if norm_layer == OWN else norm_layers.get(norm_layer)
    source = source_sha256(architecture)  # before it runs, so that what is hashed is no newer than what runs
    given = checked_arguments(arguments or {})
    with _seeded(seed):
        built = _network(architecture, classes, shape, norm, given)
    return Model(
        built.network,
        architecture=architecture,
        classes=classes,
        shape=shape,
        norm_layer=built.norm_layer,
        normalization=normalization,
        source_sha256=source or built.source_sha256,
        arguments=given,
        call=built.call,
        usual_normalization=built.usual_normalization,
        recipe=built.recipe,
    )


def _network(
    architecture: str, classes: int, shape: Shape, norm: NormLayer | None, arguments: Mapping[str, Any]
) -> Foreign:
    if not is_foreign(architecture):
        if architecture not in names():
            elsewhere = found_elsewhere(architecture)
            if elsewhere:
                raise InvalidInput(f"unknown architecture {architecture!r}: write {' or '.join(elsewhere)}")
            raise UnknownName("architecture", architecture, [*names(), *forms()])
        member = plugins.lookup(_FAMILY, architecture, "architecture")
        own_arguments(member, architecture, arguments)
        used: NormLayer = norm or inspect.signature(member).parameters["norm"].default
        return Foreign(member(classes, shape, used, **arguments), used.name)
    return foreign(architecture, classes, shape, norm, arguments)


def _checked(classes: int, shape: Shape) -> int:
    """The number of channels, after a look at what was asked for."""
    if not isinstance(classes, int) or classes < 2:
        raise InvalidInput(f"a classifier needs at least 2 classes, got {classes!r}")
    if len(shape) != 3 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise InvalidInput(f"an image's shape is (channels, height, width), all positive; got {tuple(shape)}")
    return shape[0]


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        # the default generator alone: torch.manual_seed would reseed those of the GPUs too
        torch.default_generator.manual_seed(seed)
        yield
