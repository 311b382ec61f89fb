"""ResNet-56 for CIFAR with option-A shortcuts: three stages of 9 blocks, widths 16, 32 and 64."""

from __future__ import annotations

from harness.models._base import Network, Shape
from harness.models._cifar_resnet import CifarResNet
from harness.models.norm_layers import NormLayer
from harness.models.norm_layers.batch import batch

__all__ = ["resnet56"]


def resnet56(classes: int, shape: Shape, norm: NormLayer = batch) -> Network:
    """ResNet-56 for CIFAR with option-A shortcuts: three stages of 9 blocks, widths 16, 32 and 64."""
    return CifarResNet(9, classes, shape, norm)
