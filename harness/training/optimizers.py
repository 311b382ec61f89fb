"""One optimiser for the trained parameters, and others for the parts that have their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from harness.regimes._base import PartOptimizer
from harness.training.plan import Stage
from harness.training.schedules import SCHEDULES
from harness.training.settings import Settings
from harness.util.choices import ScheduleName

__all__ = ["build", "restore", "set_rates"]


def build(parameters: Mapping[str, nn.Parameter], stage: Stage, settings: Settings) -> list[Optimizer]:
    """Optimisers over exactly the parameters that a stage trains.

    Args:
        parameters: of the network, by name, in its order.
    """
    conduct = stage.conduct
    rest = stage.trained.difference(*(names for _, names in stage.own))
    common = PartOptimizer(part=("all",), learning_rate=conduct.learning_rate, weight_decay=conduct.weight_decay)
    parts = [(common, rest), *stage.own]
    return [
        _optimizer(spec, [p for name, p in parameters.items() if name in names], settings)
        for spec, names in parts
        if names
    ]


def restore(optimizers: Sequence[Optimizer], saved: Sequence[dict[str, Any]]) -> None:
    """Go on where other optimisers of the same parameters were; rates and schedules stay those of the settings."""
    for optimizer, state in zip(optimizers, saved, strict=True):
        groups = [
            {**before, **{name: value for name, value in now.items() if name != "params"}}
            for before, now in zip(state["param_groups"], optimizer.param_groups, strict=True)
        ]
        optimizer.load_state_dict({**state, "param_groups": groups})


def set_rates(optimizers: Sequence[Optimizer], done: float, schedule: ScheduleName) -> None:
    """Every optimiser at the rate of its schedule, or of ``schedule`` where it has none of its own.

    Args:
        done: how far the phase has come, in [0, 1).
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * SCHEDULES[group["schedule"] or schedule](done)


def _optimizer(spec: PartOptimizer, parameters: list[nn.Parameter], settings: Settings) -> Optimizer:
    rate = settings.learning_rate if spec.learning_rate is None else spec.learning_rate
    decay = settings.weight_decay if spec.weight_decay is None else spec.weight_decay
    momentum = settings.momentum if spec.momentum is None else spec.momentum
    groups = [{"params": parameters, "initial_lr": rate, "schedule": spec.schedule}]
    # one kernel for all parameters: a small network spends more on the calls than on the arithmetic
    if spec.kind == "sgd":
        return SGD(groups, lr=rate, momentum=momentum, weight_decay=decay, fused=True)
    adam: type[torch.optim.Adam] = Adam if spec.kind == "adam" else AdamW
    return adam(groups, lr=rate, betas=(momentum, 0.999), weight_decay=decay, fused=True)
