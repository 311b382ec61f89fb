"""No normalisers: the convolutions' weights are standardised instead.

Brock, De & Smith 2021, "Characterizing signal propagation to close the performance gap in unnormalized
ResNets" (arXiv 2101.08692), and Brock et al. 2021, "High-Performance Large-Scale Image Recognition
Without Normalization" (arXiv 2102.06171): each filter is brought to mean 0 and variance 1 / fan-in,
times a learned gain and the constant that makes up for what the rectifier takes from the variance.
Every residual branch ends in 0.2 times a learned number that starts at zero (SkipInit), so that a
network starts as the sum of its shortcuts, where the papers' division by the expected standard
deviation is a division by one; it is therefore left out.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.norm_layers._base import NormLayer

__all__ = ["StandardizedConv2d", "weight_standardized"]

_BRANCH_SCALE = 0.2
_LEAST_VARIANCE = 1e-4


class StandardizedConv2d(nn.Conv2d):
    """A convolution whose filters are standardised in every pass (scaled weight standardisation)."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int,
        stride: int,
        slope: float | None,
        ends_branch: bool,
    ) -> None:
        super().__init__(channels_in, channels_out, kernel_size, stride, kernel_size // 2)
        self.gain = nn.Parameter(torch.ones(channels_out, 1, 1, 1))
        self.multiplier = nn.Parameter(torch.zeros(1)) if ends_branch else None
        self.constant = 1.0 if slope is None else _rectifier_gain(slope)

    def standardized(self) -> Tensor:
        """The weights that convolve."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), correction=0, keepdim=True)
        fan_in = self.weight[0].numel()
        scale = self.constant * self.gain * torch.rsqrt((variance * fan_in).clamp(min=_LEAST_VARIANCE))
        return (self.weight - mean) * scale

    def forward(self, x: Tensor) -> Tensor:
        out = F.conv2d(x, self.standardized(), self.bias, self.stride, self.padding)
        return out if self.multiplier is None else out * (_BRANCH_SCALE * self.multiplier)


def _rectifier_gain(slope: float) -> float:
    """One over the standard deviation of a leaky rectifier's output when its input is standard normal."""
    return 1 / math.sqrt((1 + slope**2) / 2 - (1 - slope) ** 2 / (2 * math.pi))


def _layer(channels: int) -> nn.Module:
    return nn.Identity()


class _WeightStandardized(NormLayer):
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
        ends_branch = branch is not None and branch[0] == branch[1]
        return StandardizedConv2d(channels_in, channels_out, kernel_size, stride, slope, ends_branch)


weight_standardized = _WeightStandardized("weight-standardized", _layer)
