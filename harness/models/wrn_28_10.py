"""Wide ResNet-28-10 (Zagoruyko & Komodakis 2016, arXiv 1605.07146), without dropout.

Three stages of four pre-activation blocks, ten times as wide as the CIFAR ResNets. Names in the state
dict are those of the public checkpoints.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from harness.models._base import Network, Shape
from harness.models.norm_layers import NormLayer
from harness.models.norm_layers.batch import batch

__all__ = ["wrn_28_10"]

_STEM = 16
_WIDTHS = (160, 320, 640)
_BLOCKS = 4


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int, norm: NormLayer) -> None:
        super().__init__()
        self.bn1 = norm(channels_in)
        self.conv1 = norm.conv(channels_in, channels_out, 3, stride=stride, branch=(1, 2))
        self.bn2 = norm(channels_out)
        self.conv2 = norm.conv(channels_out, channels_out, 3, branch=(2, 2))
        self.convShortcut: nn.Module | None = None
        if channels_in != channels_out:
            self.convShortcut = norm.conv(channels_in, channels_out, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        shortcut: Tensor = x if self.convShortcut is None else self.convShortcut(active)
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + shortcut


class _Stage(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int, norm: NormLayer) -> None:
        super().__init__()
        first = _Block(channels_in, channels_out, stride, norm)
        self.layer = nn.Sequential(first, *(_Block(channels_out, channels_out, 1, norm) for _ in range(_BLOCKS - 1)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class _WideResNet(Network):
    def __init__(self, classes: int, shape: Shape, norm: NormLayer) -> None:
        super().__init__()
        first, second, third = _WIDTHS
        self.conv1 = norm.conv(shape[0], _STEM, 3, slope=None)
        self.block1 = _Stage(_STEM, first, 1, norm)
        self.block2 = _Stage(first, second, 2, norm)
        self.block3 = _Stage(second, third, 2, norm)
        self.bn1 = norm(third)
        self.fc = nn.Linear(third, classes)
        self.groups = {
            "stem": ("conv1",),
            "block1": ("block1",),
            "block2": ("block2",),
            "block3": ("block3",),
            "last-norm": ("bn1",),
            "head": ("fc",),
        }
        norm.finish(self)

    def forward(self, x: Tensor) -> Tensor:
        out = self.block3(self.block2(self.block1(self.conv1(x))))
        logits: Tensor = self.fc(F.relu(self.bn1(out)).mean((2, 3)))
        return logits


def wrn_28_10(classes: int, shape: Shape, norm: NormLayer = batch) -> Network:
    """Wide ResNet-28-10: three stages of four pre-activation blocks, widths 160, 320 and 640."""
    return _WideResNet(classes, shape, norm)
