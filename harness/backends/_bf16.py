"""Convolutions in bfloat16, and linear layers, whose outputs attacks compare, in float32."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Autocast", "convolve_in_bf16"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def convolve_in_bf16(model: nn.Module, *, cast: bool) -> None:
    """Put convolutions in bfloat16, in place; what lies between them follows its inputs.

    Args:
        cast: let convolutions cast their inputs, where no autocast does.
    """
    for module in model.modules():
        if isinstance(module, _CONVOLUTIONS):
            module.to(torch.bfloat16)  # once here rather than in every pass
            if cast:
                module.forward = _in_bfloat16(module)  # type: ignore[method-assign]
        elif isinstance(module, nn.Linear):
            module.forward = _in_float32(module)  # type: ignore[method-assign]


class Autocast(nn.Module):
    """Lets torch decide, operation by operation, what bfloat16 is good enough for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16, cache_enabled=False):
            logits: Tensor = self.model(x)
        return logits.float()


def _in_bfloat16(layer: Any) -> Any:
    def forward(x: Tensor) -> Tensor:
        out: Tensor = layer._conv_forward(x.to(torch.bfloat16), layer.weight, layer.bias)
        return out

    return forward


def _in_float32(layer: nn.Linear) -> Any:
    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), layer.weight, layer.bias)

    return forward
