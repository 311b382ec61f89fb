"""Pre-activation ResNet-18 for CIFAR (He et al. 2016, arXiv 1603.05027): four stages of two blocks.

The stem is a 3x3 convolution without pooling, as usual for 32x32 images; a norm and a ReLU follow the
last stage. Names in the state dict are those of the public checkpoints that have this last norm.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from harness.models._base import Network, Shape
from harness.models._blocks import stage
from harness.models.norm_layers import NormLayer
from harness.models.norm_layers.batch import batch

__all__ = ["preact_resnet18"]

_WIDTHS = (64, 128, 256, 512)


class _PreActResNet18(Network):
    def __init__(self, classes: int, shape: Shape, norm: NormLayer) -> None:
        super().__init__()
        first, second, third, fourth = _WIDTHS
        self.conv1 = norm.conv(shape[0], first, 3, slope=None)
        self.layer1 = stage(first, first, 1, 2, norm)
        self.layer2 = stage(first, second, 2, 2, norm)
        self.layer3 = stage(second, third, 2, 2, norm)
        self.layer4 = stage(third, fourth, 2, 2, norm)
        self.bn = norm(fourth)
        self.linear = nn.Linear(fourth, classes)
        self.groups = {
            "stem": ("conv1",),
            "block1": ("layer1",),
            "block2": ("layer2",),
            "block3": ("layer3",),
            "block4": ("layer4",),
            "last-norm": ("bn",),
            "head": ("linear",),
        }
        norm.finish(self)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        logits: Tensor = self.linear(F.relu(self.bn(out)).mean((2, 3)))
        return logits


def preact_resnet18(classes: int, shape: Shape, norm: NormLayer = batch) -> Network:
    """Pre-activation ResNet-18 for CIFAR: four stages of two blocks, widths 64 to 512."""
    return _PreActResNet18(classes, shape, norm)
