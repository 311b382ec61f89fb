"""Batch normalization (Ioffe & Szegedy 2015, arXiv 1502.03167), with scale, shift and running statistics."""

from __future__ import annotations

from torch import nn

from harness.models.norm_layers._base import NormLayer

__all__ = ["batch"]

batch = NormLayer("batch", nn.BatchNorm2d)
