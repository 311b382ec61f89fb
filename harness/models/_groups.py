"""Layer groups: names for parts of a network, in order, so that a regime can say "stem" or "head"."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from harness.models._base import Model, Network

__all__ = ["in_group", "layer_groups"]

_HEAD = "head"


def layer_groups(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Ordered name of each layer group -> prefixes of its parameters in the network's state dict.

    Every parameter belongs to exactly one group (`in_group`); the last group is "head". Networks that
    are not of this package are divided by their top-level children: the last one with parameters is the
    head, the others are groups of their own names, parameters outside of all children come first, as "stem".
    """
    network = model.network if isinstance(model, Model) else model
    return dict(network.groups) if isinstance(network, Network) else _derived(network)


def in_group(name: str, prefixes: Iterable[str]) -> bool:
    """Whether a parameter or buffer called ``name`` belongs to a group with these prefixes."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def _derived(network: nn.Module) -> dict[str, tuple[str, ...]]:
    path = ""
    children = _parametrised(network)
    # a wrapper says nothing about the parts of what it wraps
    while len(children) == 1 and not _loose(network) and _parametrised(children[0][1]):
        path += f"{children[0][0]}."
        network = children[0][1]
        children = _parametrised(network)
    parts = [("stem" if children else _HEAD, name) for name in _loose(network)]
    parts += [(name, name) for name, _ in children[:-1]]
    parts += [(_HEAD, name) for name, _ in children[-1:]]
    groups: dict[str, tuple[str, ...]] = {}
    for group, name in parts:
        groups[group] = (*groups.get(group, ()), path + name)
    if _HEAD in groups:
        # a child of that name may stand earlier: it joins the last group rather than moving it forward
        groups[_HEAD] = groups.pop(_HEAD)
    return groups


def _parametrised(network: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, child) for name, child in network.named_children() if next(child.parameters(), None) is not None]


def _loose(network: nn.Module) -> list[str]:
    return [name for name, _ in network.named_parameters(recurse=False)]
