"""Group normalization (Wu & He 2018, arXiv 1803.08494).

The paper's 32 groups do not fit networks of 16 channels: the number of groups here is the largest
divisor of the channels up to 8, so 8 groups for every width of the registered architectures.
"""

from __future__ import annotations

from torch import nn

from harness.models.norm_layers._base import NormLayer

__all__ = ["group"]

_MOST_GROUPS = 8


def _layer(channels: int) -> nn.Module:
    groups = max(g for g in range(1, _MOST_GROUPS + 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


group = NormLayer("group", _layer)
