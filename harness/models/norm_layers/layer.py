"""Layer normalization (Ba et al. 2016, arXiv 1607.06450) of feature maps.

Each sample is normalised over channels and positions together; scale and shift are per channel, as
usual in convolutional networks, so that the layer does not depend on the image's size.
"""

from __future__ import annotations

from torch import nn

from harness.models.norm_layers._base import NormLayer

__all__ = ["layer"]


def _layer(channels: int) -> nn.Module:
    return nn.GroupNorm(1, channels)


layer = NormLayer("layer", _layer)
