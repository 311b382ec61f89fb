"""A copy of a network whose parameters never change, so that it needs none of its own."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from harness.backends._graph import hooked, is_pure_layer

__all__ = ["copied"]


def copied(model: nn.Module) -> nn.Module:
    """A copy to take apart; its frozen parameters share memory with those of ``model``.

    Raises:
        Exception: whatever something that a user's module holds says against being copied.
    """
    made: dict[int, Any] = {id(held): nn.Parameter(held.detach(), False) for held in model.parameters()}
    # torch's own layers hold nothing but tensors and numbers, and copying all of a network's deeply takes a while
    made |= {id(module): _copied_layer(module, made) for module in model.modules() if _as_torch_made_it(module)}
    return copy.deepcopy(model, made)


def _as_torch_made_it(module: nn.Module) -> bool:
    return is_pure_layer(module) and not module._modules and not hooked(module)


def _copied_layer(layer: nn.Module, made: dict[int, Any]) -> nn.Module:
    new = layer.__new__(type(layer))
    # the dictionaries of parameters, buffers and hooks are the layer's own
    new.__dict__ = {name: value.copy() if isinstance(value, dict) else value for name, value in vars(layer).items()}
    new._parameters = {name: made.get(id(held)) for name, held in layer._parameters.items()}
    new._buffers = {name: None if held is None else held.clone() for name, held in layer._buffers.items()}
    return new
