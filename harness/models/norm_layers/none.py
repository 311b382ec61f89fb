"""No normalisation at all: convolutions get a bias, the rest stays as it is.

Deep residual networks train badly this way; `fixup` and `weight-standardized` are made to do without.
"""

from __future__ import annotations

from torch import nn

from harness.models.norm_layers._base import NormLayer

__all__ = ["none"]


def _layer(channels: int) -> nn.Module:
    return nn.Identity()


none = NormLayer("none", _layer, bias=True)
