"""ResNet-20 for CIFAR with option-A shortcuts: three stages of 3 blocks, widths 16, 32 and 64."""

from __future__ import annotations

from harness.models._base import Network, Shape
from harness.models._cifar_resnet import CifarResNet
from harness.models.norm_layers import NormLayer
from harness.models.norm_layers.batch import batch

__all__ = ["resnet20"]


def resnet20(classes: int, shape: Shape, norm: NormLayer = batch) -> Network:
    """ResNet-20 for CIFAR with option-A shortcuts: three stages of 3 blocks, widths 16, 32 and 64."""
    return CifarResNet(3, classes, shape, norm)
