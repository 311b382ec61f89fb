"""Points judged again, by the rules of `harness.engine.judge`, without stopping at the first that is wrong."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from harness.backends.equivalence import TOLERANCES
from harness.backends.passes import Passes
from harness.errors import ModelError
from harness.threat import ThreatModel
from harness.util.images import Images

__all__ = ["Classified", "Mask", "classify", "outside"]

_FEW, _SHARE = 2, 100
"""How many images may be in a class that is nearly as likely as the stated one: so many, or one of so many."""

_MANY, _TRIED = 2000, 48
"""Of so many images on, passes are timed on the first of them."""

_ROWS = (24, 48)
_OF_PICTURES = 4

Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


class Classified(NamedTuple):
    """How samples are classified, compared with what was stated.

    Attributes:
        otherwise: bool ``[n]``, in another class than the stated one.
        close: bool ``[n]``, in another class as well, but by less than float32 rounding differs between machines.
    """

    otherwise: Mask
    close: Mask


def classify(
    network: nn.Module,
    images: Images,
    stated: np.ndarray[tuple[int], np.dtype[np.int64]],
    *,
    batch_size: int,
    device: torch.device,
) -> Classified:
    """Classify images, and compare with the classes that were stated for them.

    Args:
        images: ``[n, ...]`` on the CPU, at least one. stated: ``[n]``.

    Raises:
        ModelError: the model fails.
    """
    passes = _fastest(network, images, batch_size, device)
    parts = (images[begin : begin + batch_size] for begin in range(0, len(images), batch_size))
    logits = torch.cat([passes.logits(part.to(device), "while a result was verified").cpu() for part in parts])
    classes = torch.tensor(stated)
    possible = (classes >= 0) & (classes < logits.shape[1]) & torch.isfinite(logits).all(dim=1)
    same = possible & (logits.argmax(dim=1) == classes)
    largest = logits.amax(dim=1)
    short = largest - logits.gather(1, classes.clamp(0, logits.shape[1] - 1)[:, None]).squeeze(1)
    close = possible & ~same & (short <= TOLERANCES["fp32"].logits * (largest - logits.amin(dim=1)))
    # rounding explains a few samples; many of them say that the logits are too unlike each other to be told apart so
    if int(close.sum()) > max(_FEW, len(close) // _SHARE):
        close = torch.zeros_like(close)
    return Classified((~same & ~close).numpy(), close.numpy())


def _fastest(network: nn.Module, images: Images, batch_size: int, device: torch.device) -> Passes:
    """Passes of the network as it is, in the memory layout and number of rows that take least time on these images."""
    plain = Passes(network, None, batch_size)
    if device.type != "cpu" or len(images) < _MANY or len(images.shape) != _OF_PICTURES:
        return plain
    first = images[:_TRIED]
    expected = plain.logits(first, "while a result was verified")
    room = TOLERANCES["fp32"].logits * (expected.amax(1) - expected.amin(1))[:, None]
    kept, least = plain, _seconds(plain, first)
    for rows in _ROWS:
        other = Passes(network, None, batch_size, layout=torch.channels_last, micro_batch=rows)
        try:
            same = bool(((other.logits(first, "in another layout") - expected).abs() <= room).all())
            took = _seconds(other, first)
        except ModelError:  # its code asks for images one pixel after the other
            return plain
        if same and took < least:
            kept, least = other, took
    return kept


def _seconds(passes: Passes, images: Tensor) -> float:
    """What passes take that were made once before."""
    passes.drain()
    passes.logits(images, "while layouts were compared")
    return passes.drain()


def outside(points: Tensor, x: Images, threat: ThreatModel, *, batch_size: int) -> Mask:
    """Which points, bool ``[n]``, lie beyond the radius, outside [0, 1], or are not finite."""
    inside = []
    for begin in range(0, len(points), batch_size):
        part, clean = (images[begin : begin + batch_size] for images in (points, x))
        flat = part.flatten(1)
        # a NaN fails every comparison
        near = threat.distance(part, clean) <= threat.radius + threat.tolerance
        inside.append(near & (flat.amin(1) >= 0) & (flat.amax(1) <= 1))
    return (~torch.cat(inside)).numpy()
