"""Instance normalization (Ulyanov et al. 2016, arXiv 1607.08022): each channel of each sample by itself.

Scale and shift are learned; there are no running statistics, so training and evaluation do the same.
Feature maps must be larger than one pixel.
"""

from __future__ import annotations

from torch import nn

from harness.models.norm_layers._base import NormLayer

__all__ = ["instance"]


def _layer(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True)


instance = NormLayer("instance", _layer)
