"""Fixup: residual networks that train without normalisation by their starting weights.

Zhang, Dauphin & Ma 2019, "Fixup Initialization: Residual Learning Without Normalization" (arXiv
1901.09321). With L residual branches of m convolutions each:

1. the classifier and the last convolution of every branch start at zero;
2. all others start as He et al. say, those within a branch scaled by L^(-1/(2m-2));
3. a scalar multiplier, starting at one, ends every branch, and a scalar shift, starting at zero, stands
   before every convolution and rectifier. (The one before the classifier is left out: the classifier's
   bias can do all that it can.)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.models.norm_layers._base import NormLayer, he_normal

__all__ = ["FixupConv2d", "fixup"]


class _Shift(nn.Module):
    """Adds one learned number."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


class FixupConv2d(nn.Conv2d):
    """A convolution after a scalar shift and, where it ends a branch, before a scalar multiplier."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int,
        stride: int,
        branch: tuple[int, int] | None,
    ) -> None:
        super().__init__(channels_in, channels_out, kernel_size, stride, kernel_size // 2, bias=False)
        self.branch = branch
        self.shift = nn.Parameter(torch.zeros(1))
        self.multiplier = nn.Parameter(torch.ones(1)) if self.ends_branch else None

    @property
    def ends_branch(self) -> bool:
        """Whether it is the last convolution of a residual branch."""
        return self.branch is not None and self.branch[0] == self.branch[1]

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x + self.shift)
        return out if self.multiplier is None else out * self.multiplier


class _Fixup(NormLayer):
    def conv(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int,
        *,
        stride: int = 1,
        slope: float | None = 0.0,
        branch: tuple[int, int] | None = None,
    ) -> nn.Module:
        return FixupConv2d(channels_in, channels_out, kernel_size, stride, branch)

    def finish(self, network: nn.Module) -> None:
        convs = [module for module in network.modules() if isinstance(module, FixupConv2d)]
        branches = sum(conv.ends_branch for conv in convs)
        for conv in convs:
            he_normal(conv)
            if conv.ends_branch:
                nn.init.zeros_(conv.weight)
            elif conv.branch is not None:
                with torch.no_grad():
                    conv.weight.mul_(branches ** (-1 / (2 * conv.branch[1] - 2)))
        for module in network.modules():
            if isinstance(module, nn.Linear):
                for parameter in module.parameters():
                    nn.init.zeros_(parameter)


fixup = _Fixup("fixup", _Shift)
