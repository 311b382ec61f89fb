"""The CIFAR ResNets of He et al. 2016, "Deep Residual Learning for Image Recognition" (arXiv 1512.03385).

Three stages of 16, 32 and 64 channels, post-activation blocks, and shortcuts without parameters
(option A): every second pixel, zeros in the new channels. Names in the state dict are those of the
public checkpoints.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from harness.models._base import Network, Shape
from harness.models._blocks import pad_channels
from harness.models.norm_layers import NormLayer

__all__ = ["CifarResNet"]

_WIDTHS = (16, 32, 64)


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int, norm: NormLayer) -> None:
        super().__init__()
        self.conv1 = norm.conv(channels_in, channels_out, 3, stride=stride, branch=(1, 2))
        self.bn1 = norm(channels_out)
        self.conv2 = norm.conv(channels_out, channels_out, 3, branch=(2, 2))
        self.bn2 = norm(channels_out)
        self.channels_out = channels_out
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1:
            x = pad_channels(x[:, :, :: self.stride, :: self.stride], self.channels_out)
        return F.relu(out + x)


def _stage(channels_in: int, channels_out: int, stride: int, blocks: int, norm: NormLayer) -> nn.Sequential:
    first = _Block(channels_in, channels_out, stride, norm)
    return nn.Sequential(first, *(_Block(channels_out, channels_out, 1, norm) for _ in range(blocks - 1)))


class CifarResNet(Network):
    """A ResNet of ``6 * blocks + 2`` layers."""

    def __init__(self, blocks: int, classes: int, shape: Shape, norm: NormLayer) -> None:
        super().__init__()
        first, second, third = _WIDTHS
        self.conv1 = norm.conv(shape[0], first, 3, slope=None)
        self.bn1 = norm(first)
        self.layer1 = _stage(first, first, 1, blocks, norm)
        self.layer2 = _stage(first, second, 2, blocks, norm)
        self.layer3 = _stage(second, third, 2, blocks, norm)
        self.linear = nn.Linear(third, classes)
        self.groups = {
            "stem": ("conv1", "bn1"),
            "block1": ("layer1",),
            "block2": ("layer2",),
            "block3": ("layer3",),
            "head": ("linear",),
        }
        norm.finish(self)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits
