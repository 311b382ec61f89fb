"""First values of a network's parameters, other than its architecture's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from harness.models import Model
from harness.models._selectors import bn_layers, select
from harness.regimes import Init
from harness.training.batches import generator
from harness.util.choices import Initializer

__all__ = ["initialize"]

_Fill = Callable[[Tensor, torch.Generator], object]
_FILLS: Mapping[Initializer, _Fill] = MappingProxyType(
    {
        "kaiming-normal": lambda weight, draws: nn.init.kaiming_normal_(weight, generator=draws),
        "kaiming-uniform": lambda weight, draws: nn.init.kaiming_uniform_(weight, math.sqrt(5), generator=draws),
        "xavier-normal": lambda weight, draws: nn.init.xavier_normal_(weight, generator=draws),
        "xavier-uniform": lambda weight, draws: nn.init.xavier_uniform_(weight, generator=draws),
        "orthogonal": lambda weight, draws: nn.init.orthogonal_(weight, generator=draws),
    }
)


@torch.no_grad()
def initialize(model: Model, init: Init | None, seed: int) -> None:
    """Give parameters of ``model`` on the CPU the values that ``init`` says; torch's global generator is not used."""
    if init is None:
        return
    head = {name for name in select(model, ("head",)) if name.endswith("weight")} if init.head else set()
    for number, (name, module) in enumerate(model.network.named_modules()):
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor):
            continue
        draws = generator(seed, "initial values", number, torch.device("cpu"))
        if init.head is not None and f"{name}.weight" in head:
            _FILLS[init.head](weight, draws)
        elif init.conv is not None and isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            _FILLS[init.conv](weight, draws)
    if init.bn_gamma is not None:
        for number, layer in enumerate(bn_layers(model.network).values()):
            if layer.weight is None:
                continue
            if init.bn_gamma == "uniform":
                layer.weight.uniform_(generator=generator(seed, "initial gamma", number, torch.device("cpu")))
            else:
                layer.weight.fill_(float(init.bn_gamma))
