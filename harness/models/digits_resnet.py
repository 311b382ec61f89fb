"""Small pre-activation ResNet for 8x8 digits: one block in each of three stages, widths 16, 32 and 64."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from harness.models._base import Network, Shape
from harness.models._blocks import stage
from harness.models.norm_layers import NormLayer
from harness.models.norm_layers.batch import batch

__all__ = ["digits_resnet"]

_WIDTHS = (16, 32, 64)


class _DigitsResNet(Network):
    def __init__(self, classes: int, shape: Shape, norm: NormLayer) -> None:
        super().__init__()
        first, second, third = _WIDTHS
        self.conv1 = norm.conv(shape[0], first, 3, slope=None)
        self.layer1 = stage(first, first, 1, 1, norm)
        self.layer2 = stage(first, second, 2, 1, norm)
        self.layer3 = stage(second, third, 2, 1, norm)
        self.bn = norm(third)
        self.linear = nn.Linear(third, classes)
        self.groups = {
            "stem": ("conv1",),
            "block1": ("layer1",),
            "block2": ("layer2",),
            "block3": ("layer3",),
            "last-norm": ("bn",),
            "head": ("linear",),
        }
        norm.finish(self)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        logits: Tensor = self.linear(F.relu(self.bn(out)).mean((2, 3)))
        return logits


def digits_resnet(classes: int, shape: Shape, norm: NormLayer = batch) -> Network:
    """Small pre-activation ResNet for 8x8 digits: one block in each of three stages, widths 16, 32 and 64."""
    return _DigitsResNet(classes, shape, norm)
