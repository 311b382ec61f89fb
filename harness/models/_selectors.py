"""Parts of a network by name: what a regime trains, resets, perturbs or gives an optimiser of its own.

A selector is one of

=====================  =====================================================================
``all``                everything
``bn-gamma``           scales of the BN layers (found by their type, whatever they are called)
``bn-beta``            their shifts
``head``               the output layer
``group:NAME``         one layer group of the architecture, such as ``group:stage1``
``groups:FROM:TO``     a slice of the ordered groups, stem first, as in Python: ``groups::2``
=====================  =====================================================================

and a union of them is a tuple. With a hyphen in front it takes away: ``("all", "-bn-gamma")``; a tuple
that begins with a hyphen takes away from everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.errors import InvalidInput, did_you_mean
from harness.models import Model, layer_groups

__all__ = ["bn_layers", "select", "select_bn_layers"]

_KEYWORDS = ("all", "bn-gamma", "bn-beta", "head")
_SLICE = re.compile(r"(-?\d*):(-?\d*)")
_STATISTICS = "running statistics"


def bn_layers(network: nn.Module) -> dict[str, _BatchNorm]:
    """The BN layers of a network by their names, in its order."""
    return {name: module for name, module in network.named_modules() if isinstance(module, _BatchNorm)}


def select(model: Model, selectors: Sequence[str]) -> frozenset[str]:
    """Names of the parameters of ``model.network`` that the selectors mean.

    Raises:
        InvalidInput: a selector that is unknown or matches nothing in this network.
    """
    parameters = {name for name, _ in model.network.named_parameters()}
    return frozenset(_resolve(model, selectors) & parameters)


def select_bn_layers(model: Model, selectors: Sequence[str]) -> frozenset[str]:
    """Names of the BN layers that the selectors mean, wholly or in part.

    Raises:
        InvalidInput: as `select`.
    """
    chosen = _resolve(model, selectors)
    return frozenset(name for name, layer in bn_layers(model.network).items() if chosen & set(_names_in(name, layer)))


def _names_in(name: str, layer: _BatchNorm) -> Iterator[str]:
    # the statistics count as a name of their own, so that a layer without gamma and beta has a place too
    yield f"{name}.{_STATISTICS}"
    for parameter, _ in layer.named_parameters():
        yield f"{name}.{parameter}"


def _resolve(model: Model, selectors: Sequence[str]) -> set[str]:
    everything = {name for name, _ in model.network.named_parameters()}
    for name, layer in bn_layers(model.network).items():
        everything.update(_names_in(name, layer))
    chosen = set(everything) if selectors and selectors[0].startswith("-") else set()
    for selector in selectors:
        names = _match(model, selector.removeprefix("-"), everything)
        if not names:
            raise InvalidInput(f"{selector!r} matches nothing: {_what_there_is(model)}")
        chosen = chosen - names if selector.startswith("-") else chosen | names
    return chosen


def _match(model: Model, selector: str, everything: set[str]) -> set[str]:
    if selector == "all":
        return everything
    if selector in ("bn-gamma", "bn-beta"):
        attribute = "weight" if selector == "bn-gamma" else "bias"
        return {f"{name}.{attribute}" for name in bn_layers(model.network)} & everything
    groups = layer_groups(model)
    kind, _, argument = selector.partition(":")
    if selector == "head":
        wanted = ["head"]
    elif kind == "group" and argument in groups:
        wanted = [argument]
    elif kind == "groups" and (bounds := _SLICE.fullmatch(argument)):
        first, last = (int(bound) if bound else None for bound in bounds.groups())
        wanted = list(groups)[first:last]
    else:
        known = [*_KEYWORDS, *(f"group:{name}" for name in groups)]
        raise InvalidInput(
            f"no part of the network is called {selector!r}: {_what_there_is(model)}{did_you_mean(selector, known)}"
        )
    prefixes = [prefix for name in wanted for prefix in groups[name]]
    return {n for n in everything if any(n == p or n.startswith(f"{p}.") for p in prefixes)}


def _what_there_is(model: Model) -> str:
    layers = bn_layers(model.network)
    affine = any(layer.affine for layer in layers.values())
    bn = "" if affine else " (its BN layers have no gamma and beta)" if layers else " (it has no BN layer)"
    parts = [word for word in _KEYWORDS if affine or not word.startswith("bn-")]
    parts += [f"group:{name}" for name in layer_groups(model)]
    return f"this network has {', '.join(parts)}{bn}"
