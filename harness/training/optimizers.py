"""One optimiser for the trained parameters, and others for the parts that have their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from harness.regimes._base import PartOptimizer
from harness.training.settings import Settings

__all__ = ["build", "set_rate"]


def build(
    parameters: Mapping[str, nn.Parameter],
    trained: frozenset[str],
    own: Sequence[tuple[PartOptimizer, frozenset[str]]],
    settings: Settings,
) -> list[Optimizer]:
    """Optimisers over exactly the trained parameters.

    Args:
        parameters: of the network, by name, in its order.
        trained: names of those that are trained.
        own: the parts with an optimiser of their own, which must not overlap.
    """
    rest = trained.difference(*(names for _, names in own))
    parts = [(PartOptimizer(part=("all",)), rest), *own]
    return [
        _optimizer(spec, [p for name, p in parameters.items() if name in names], settings)
        for spec, names in parts
        if names
    ]


def set_rate(optimizers: Sequence[Optimizer], factor: float) -> None:
    """Every optimiser at this factor of its peak rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor


def _optimizer(spec: PartOptimizer, parameters: list[nn.Parameter], settings: Settings) -> Optimizer:
    rate = settings.learning_rate if spec.learning_rate is None else spec.learning_rate
    decay = settings.weight_decay if spec.weight_decay is None else spec.weight_decay
    momentum = settings.momentum if spec.momentum is None else spec.momentum
    groups = [{"params": parameters, "initial_lr": rate}]
    # one kernel for all parameters: a small network spends more on the calls than on the arithmetic
    if spec.kind == "sgd":
        return SGD(groups, lr=rate, momentum=momentum, weight_decay=decay, fused=True)
    adam: type[torch.optim.Adam] = Adam if spec.kind == "adam" else AdamW
    return adam(groups, lr=rate, betas=(momentum, 0.999), weight_decay=decay, fused=True)
