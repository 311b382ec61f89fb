"""Losses that attacks raise, one value per sample.

All take ``logits [n, k]`` and ``y [n]`` and return ``[n]``, larger meaning closer to (or deeper into)
misclassification.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

__all__ = ["cross_entropy", "dlr", "margin", "targeted_dlr", "targeted_margin"]

_TINY = 1e-12


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of the true class."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Best other logit minus the true one: positive when misclassified. Any number of classes >= 2."""
    true = y.unsqueeze(1)
    others = logits.scatter(1, true, -math.inf)
    return others.amax(dim=1) - logits.gather(1, true).squeeze(1)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio (Croce & Hein 2020, eq. 6): the margin over the spread of the top 3.

    Invariant to shift and scale of the logits. Needs at least 3 classes.
    """
    top = logits.topk(3, dim=1).values
    true = logits.gather(1, y[:, None]).squeeze(1)
    # ties aside, the largest logit is the true one exactly when the sample is classified correctly
    correct = logits.sort(dim=1).indices[:, -1] == y
    other = top[:, 1].where(correct, top[:, 0])
    return -(true - other) / (top[:, 0] - top[:, 2] + _TINY)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Targeted difference of logits ratio (Croce & Hein 2020, eq. 7). Needs at least 4 classes."""
    top = logits.topk(4, dim=1).values
    true = logits.gather(1, y[:, None]).squeeze(1)
    aimed = logits.gather(1, target[:, None]).squeeze(1)
    return -(true - aimed) / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + _TINY)


def targeted_margin(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Target logit minus the true one. Any number of classes >= 2."""
    true = logits.gather(1, y[:, None])
    return (logits.gather(1, target[:, None]) - true).squeeze(1)
