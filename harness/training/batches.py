"""The training data: what is kept aside, in which order the rest comes, and how it is augmented.

Generators are made anew for every epoch from the seed, so that a run that goes on after a kill needs no
generator state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import InvalidInput

__all__ = ["batches", "crop_flip", "generator", "split"]

_PADDING = 4


def generator(seed: int, purpose: str, epoch: int, device: torch.device) -> torch.Generator:
    """The generator for one purpose in one epoch of one run."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{epoch}".encode(), digest_size=7).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little"))


def split(y: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Positions to train on and positions kept aside, the latter ``share`` of every class.

    Raises:
        InvalidInput: fewer than two samples are left to train on.
    """
    order = torch.randperm(len(y), generator=generator(seed, "split", 0, torch.device("cpu")))
    aside = torch.zeros(len(y), dtype=torch.bool)
    for label in sorted(set(y.tolist())):
        members = order[y[order] == label]
        aside[members[: round(share * len(members))]] = True
    if int((~aside).sum()) < 2:
        raise InvalidInput(f"{len(y)} training samples less the validation share {share:g} leave fewer than two")
    return (~aside).nonzero().flatten(), aside.nonzero().flatten()


def batches(
    x: Tensor, y: Tensor, *, size: int, augment: bool, order: torch.Generator, crops: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in a random order. Samples beyond the last full batch wait for another epoch's order, so
    that all batches are of one shape and none is too small for batch statistics.

    Args:
        order: on the CPU, so that the order does not depend on the device. crops: on the device of ``x``.
    """
    size = min(size, len(x))
    positions = torch.randperm(len(x), generator=order).to(x.device)
    for first in range(0, len(x) - size + 1, size):
        chosen = positions[first : first + size]
        yield (crop_flip(x[chosen], crops) if augment else x[chosen]), y[chosen]


def crop_flip(x: Tensor, draws: torch.Generator) -> Tensor:
    """Each image shifted by up to four pixels (zeros come in) and mirrored with probability one half."""
    n, _, height, width = x.shape
    padded = F.pad(x, (_PADDING,) * 4)
    top, left = torch.randint(0, 2 * _PADDING + 1, (2, n), generator=draws, device=x.device)
    flip = torch.rand(n, generator=draws, device=x.device) < 0.5
    rows = top[:, None] + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device).expand(n, width)
    columns = left[:, None] + torch.where(flip[:, None], columns.flip(1), columns)
    samples = torch.arange(n, device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[samples, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
