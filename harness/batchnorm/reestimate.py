"""Running statistics of BN layers, re-estimated."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from harness.models._selectors import bn_layers

__all__ = ["reestimate"]


def reestimate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics by the plain average over some batches, in place.

    Every batch counts the same, whatever the layers' momentum. The mode of the model is left as it was.

    Args:
        batches: images ``[n, ...]``, which may depend on the model only through a copy of it.
    """
    layers = list(bn_layers(model).values())
    before = [(module, module.training) for module in model.modules()]
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch's word for a cumulative average
        layer.training = True
    try:
        for x in batches:  # which may need gradients of their own
            with torch.no_grad():
                model(x)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, training in before:
            module.training = training
