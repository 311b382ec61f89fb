"""LeNet-5 in the wide form of robustness benchmarks: convolutions of 32 and 64 channels, no norm layers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import InvalidInput
from harness.models._base import Network, Shape
from harness.models.norm_layers import NormLayer
from harness.models.norm_layers.none import none

__all__ = ["lenet5"]

_SHRINK = 4  # two poolings, each by 2


class _LeNet5(Network):
    def __init__(self, classes: int, shape: Shape) -> None:
        super().__init__()
        channels, height, width = shape
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.linear1 = nn.Linear(64 * (height // _SHRINK) * (width // _SHRINK), 200)
        self.linear2 = nn.Linear(200, classes)
        self.groups = {
            "stem": ("conv1",),
            "block1": ("conv2",),
            "block2": ("linear1",),
            "head": ("linear2",),
        }

    def forward(self, x: Tensor) -> Tensor:
        out = F.max_pool2d(F.relu(self.conv1(x)), 2)
        out = F.max_pool2d(F.relu(self.conv2(out)), 2)
        logits: Tensor = self.linear2(F.relu(self.linear1(out.flatten(1))))
        return logits


def lenet5(classes: int, shape: Shape, norm: NormLayer = none) -> Network:
    """LeNet-5 in the wide form of robustness benchmarks: convolutions of 32 and 64 channels, no norm layers.

    Raises:
        InvalidInput: a norm layer other than "none", or an image smaller than 4x4.
    """
    if norm.name != none.name:
        raise InvalidInput(f"lenet5 has no norm layers: expected norm layer 'none', got {norm.name!r}")
    if min(shape[1:]) < _SHRINK:
        raise InvalidInput(f"lenet5 needs images of at least 4x4 pixels, got {shape[1]}x{shape[2]}")
    return _LeNet5(classes, shape)
