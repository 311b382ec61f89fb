"""Batch normalization without scale and shift: statistics only."""

from __future__ import annotations

from torch import nn

from harness.models.norm_layers._base import NormLayer

__all__ = ["batch_no_affine"]


def _layer(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, affine=False)


batch_no_affine = NormLayer("batch-no-affine", _layer)
