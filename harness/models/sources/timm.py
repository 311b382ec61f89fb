"""timm:NAME, a model of timm."""

from __future__ import annotations

from typing import Any

from harness.errors import InvalidInput, UnknownName
from harness.models._base import Recipe, Shape
from harness.models._normalization import Normalization
from harness.models.norm_layers import NormLayer
from harness.models.sources._base import Complete, Foreign, fetching, library, similar
from harness.util.literals import listed_arguments

__all__ = ["complete", "known_names", "timm"]

_READ_FILES = frozenset(("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"))
"""Arguments by which timm opens or fetches files, which it unpickles."""


def timm(name: str, classes: int, shape: Shape, norm: NormLayer | None, /, **arguments: Any) -> Foreign:
    """The model ``name`` without weights from elsewhere; ``arguments`` go to its constructor."""
    refused = sorted(_READ_FILES & arguments.keys())
    if refused:
        raise InvalidInput(f"timm:{name} takes its weights from the checkpoint alone: leave out {', '.join(refused)}")
    package = library("timm")
    if not package.is_model(name):
        raise UnknownName("timm architecture", name, similar(name, package.list_models()))
    settings = package.get_pretrained_cfg(name)
    # networks that are built for one size (transformers) are told which
    size = {"img_size": shape[1:]} if settings is not None and settings.fixed_input_size else {}
    chosen = {"num_classes": classes, "in_chans": shape[0]} | size | arguments
    network = package.create_model(name, pretrained=False, **chosen)
    recipe = Recipe("import timm\n", f"timm.create_model({name!r}, {listed_arguments(chosen)})")
    return Foreign(network, usual_normalization=_normalization(settings, shape[0]), recipe=recipe)


def complete(name: str) -> Complete:
    """The model ``name`` with the weights that timm has for it, which are fetched where they are not there."""
    package = library("timm")
    if not package.is_model(name):
        raise UnknownName("timm architecture", name, similar(name, package.list_models()))
    with fetching(f"timm:{name}"):
        network = package.create_model(name, pretrained=True)
    settings = network.pretrained_cfg
    channels, height, width = settings["input_size"]
    normalization = Normalization(tuple(settings["mean"]), tuple(settings["std"]))
    return Complete(network, int(network.num_classes), (channels, height, width), normalization)


def known_names() -> list[str]:
    """All that timm has."""
    return list(library("timm").list_models())


def _normalization(settings: Any, channels: int) -> Normalization | None:
    """What timm's configuration of a model says."""
    if settings is None or len(settings.mean) != channels or len(settings.std) != channels:
        return None
    return Normalization(tuple(settings.mean), tuple(settings.std))
