"""Networks from elsewhere: torchvision, timm, robustbench or a user's own file, all with fresh weights."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.errors import HarnessError, InvalidInput, UnknownName, nearest
from harness.models._base import Shape
from harness.models._user_file import from_file, one_line
from harness.models.norm_layers import NormLayer

__all__ = ["OWN", "SOURCES", "Foreign", "foreign", "is_foreign"]

OWN = "own"
"""Stands for the norm layers that an architecture has by itself."""

SOURCES = {
    "torchvision:NAME": "a classifier of torchvision.models",
    "timm:NAME": "a model of timm",
    "robustbench:NAME": "a network of the RobustBench zoo; also robustbench:DATASET/THREAT/NAME",
    "FILE.py:FACTORY": "a function in a file of your own that returns a torch module",
}

_SHOWN = 12
_ZOO_DATASETS = {10: "cifar10", 100: "cifar100", 1000: "imagenet"}
# a name without a threat model is looked up in this order
_ZOO_THREATS = ("Linf", "L2", "corruptions")


class Foreign(NamedTuple):
    """A network that was not written here, and the name of the norm layer that it has."""

    network: nn.Module
    norm_layer: str


def is_foreign(architecture: str) -> bool:
    """Whether the name says where a network comes from."""
    return ":" in architecture or architecture.endswith(".py")


def foreign(architecture: str, classes: int, shape: Shape, norm: NormLayer | None) -> Foreign:
    """The network that ``SOURCE:NAME`` names, with fresh weights.

    Args:
        norm: the norm layer asked for, None for the network's own.

    Raises:
        UnknownName: no such source, or no such name in it.
        InvalidInput: a norm layer, image or number of classes that the network cannot have, or a factory
            that fails.
    """
    source, _, name = architecture.rpartition(":")
    if architecture.endswith(".py"):
        raise InvalidInput(f"an architecture in a file is written FILE.py:FACTORY, got {architecture!r}")
    if source.endswith(".py"):
        network, injected = from_file(source, name, classes, shape, norm)
        if injected:
            return Foreign(network, injected)
    elif source in _BUILDERS:
        network = _built(source, name, classes, shape)
    else:
        raise UnknownName("source of architectures", source, (form.partition(":")[0] for form in SOURCES))
    if norm is not None and not (norm.name == "batch" and _has_batch_norm(network)):
        raise InvalidInput(f"{architecture} has norm layers of its own: expected norm layer {OWN!r}, got {norm.name!r}")
    return Foreign(network, OWN)


def _built(source: str, name: str, classes: int, shape: Shape) -> nn.Module:
    try:
        return _BUILDERS[source](name, classes, shape)
    except HarnessError:
        raise
    except Exception as error:
        raise InvalidInput(
            f"{source}:{name} cannot be built for {classes} classes and images of shape {tuple(shape)}: "
            f"{one_line(error)}"
        ) from error


def _has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def _torchvision(name: str, classes: int, shape: Shape) -> nn.Module:
    models = _library("torchvision.models")
    known = models.list_models(module=models)
    if name not in known:
        raise UnknownName("torchvision architecture", name, nearest(name, known, count=_SHOWN, cutoff=0))
    if shape[0] != 3:
        raise InvalidInput(f"torchvision:{name} takes images of 3 channels, got {shape[0]}")
    network: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    return network


def _timm(name: str, classes: int, shape: Shape) -> nn.Module:
    timm = _library("timm")
    if not timm.is_model(name):
        raise UnknownName("timm architecture", name, nearest(name, timm.list_models(), count=_SHOWN, cutoff=0))
    settings = timm.get_pretrained_cfg(name)
    # networks that are built for one size (transformers) are told which
    size = {"img_size": shape[1:]} if settings is not None and settings.fixed_input_size else {}
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=shape[0], **size)
    return network


def _robustbench(name: str, classes: int, shape: Shape) -> nn.Module:
    # most users never need robustbench
    from harness.models.sources.robustbench import zoo_model, zoo_names

    if shape[0] != 3:
        raise InvalidInput(f"robustbench:{name} takes images of 3 channels, got {shape[0]}")
    parts = name.split("/")
    if len(parts) == 3:
        network = zoo_model(parts[2], parts[0], parts[1])
    elif len(parts) == 1:
        dataset = _ZOO_DATASETS.get(classes)
        if dataset is None:
            raise InvalidInput(
                f"robustbench has models for {sorted(_ZOO_DATASETS)} classes, not for {classes}; "
                "write robustbench:DATASET/THREAT/NAME to choose one all the same"
            )
        threat_of: dict[str, str] = {}
        for threat in _ZOO_THREATS:
            with suppress(UnknownName):  # not every data set has entries for every threat model
                threat_of = dict.fromkeys(zoo_names(dataset, threat), threat) | threat_of
        if name not in threat_of:
            raise UnknownName(
                f"robustbench model for {dataset}", name, nearest(name, threat_of, count=_SHOWN, cutoff=0)
            )
        network = zoo_model(name, dataset, threat_of[name])
    else:
        raise InvalidInput(f"write robustbench:NAME or robustbench:DATASET/THREAT/NAME, got robustbench:{name}")
    return network.train()


_BUILDERS: dict[str, Callable[[str, int, Shape], nn.Module]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "robustbench": _robustbench,
}


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise HarnessError(
            f"{package} could not be imported ({error}); install it with: pip install {package}"
        ) from error
