"""Checks of a model: what makes an evaluation impossible is raised, what makes it doubtful is a flag.

One function a check. Each is given what the model returned and makes no passes of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.errors import InvalidInput, ModelError
from harness.util.tensors import identical

__all__ = [
    "CHANGES_INPUT",
    "batch_dependent",
    "claims_rejected",
    "gradient_free_gain",
    "log_probabilities",
    "permuted",
    "probabilities",
    "randomised",
    "refuse_changed_images",
    "refuse_changed_state",
    "refuse_few_classes",
    "refuse_nan",
    "refuse_unknown_labels",
    "rescaling",
    "state_kept",
]

Index = np.ndarray[Any, np.dtype[np.int64]]

CHANGES_INPUT = (
    "the model's forward pass changes its input in place, so that no attack could know which point it is at; "
    "let it work on a copy"
)

_RANDOM, _OF_THE_BATCH = 1e-4, 1e-3
"""Distances of two answers to the same image, each scaled to length one, that rounding does not explain."""

_GRADIENT_FREE_GAIN = 0.002
"""The share of samples that an attack without gradients may break after the others before that is a sign of masked
gradients (as in AutoAttack)."""

_MANY_REJECTED = 5
"""Fewer rejected proposals may be points on the boundary, which rounding decides."""

_OF_SURVIVORS = 0.1
"""Where few samples survive, a share of these counts for a tenth as much."""

_SMALL, _LARGE, _USUAL = 1e-3, 80.0, 8.0
"""Differences of logits that losses in float32 cannot work with, and what they are brought to."""


@contextmanager
def refuse_changed_state(model: nn.Module) -> Iterator[None]:
    """Raise a `ModelError` if passes made inside change the model's tensors, and put these back."""
    before = {name: value.clone() for name, value in _tensors(model).items()}
    changed: list[str] = []
    try:
        yield
    finally:
        now = _tensors(model)
        changed += [name for name, value in before.items() if name not in now or not identical(now[name], value)]
        with torch.no_grad():
            for name in changed:
                if name in now and now[name].shape == before[name].shape:
                    now[name].copy_(before[name])
    if changed:
        shown = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
        raise ModelError(
            f"the model's forward pass changes its own state ({shown}), so that every verdict would depend on the "
            "passes before it; put all of its modules in eval mode: model.eval()"
        )


def refuse_changed_images(passed: Tensor, original: Tensor) -> None:
    """Raise a `ModelError` if images are no longer the ``original`` ones after they were passed to the model."""
    if not torch.equal(passed, original):
        raise ModelError(CHANGES_INPUT)


def refuse_nan(logits: Tensor, names: Index) -> None:
    """Raise a `ModelError` that names the samples whose clean logits ``[n, k]`` are not finite."""
    bad = (~torch.isfinite(logits).all(dim=1)).nonzero().squeeze(1).tolist()
    if bad:
        shown = ", ".join(str(int(names[row])) for row in bad[:10]) + (", ..." if len(bad) > 10 else "")
        raise ModelError(
            f"the model returned NaN or infinite logits for {len(bad)} clean image{'s' if len(bad) > 1 else ''} "
            f"(sample {shown}): nothing can be said of such a model"
        )


def refuse_few_classes(classes: int) -> None:
    """Raise a `ModelError` if there is no other class to mistake an image for."""
    if classes < 2:
        raise ModelError(f"the model returns {classes} logit per sample: attacks need at least 2 classes")


def refuse_unknown_labels(y: Tensor, classes: int, names: Index) -> None:
    """Raise an `InvalidInput` that names the first sample with a class beyond the model's.

    Args:
        y: int64 ``[n]``. classes: how many the model knows.
    """
    beyond = (y >= classes).nonzero().squeeze(1)
    if len(beyond):
        row = int(beyond[0])
        raise InvalidInput(
            f"sample {int(names[row])} has class {int(y[row])}, but the model knows {classes} (0 to {classes - 1})"
        )


def randomised(first: Tensor, again: Tensor) -> Flag | None:
    """Whether two passes of the same images gave different logits ``[n, k]``."""
    return kinds.RANDOMISED() if _apart(first, again) > _RANDOM else None


def batch_dependent(together: Tensor, alone: Tensor) -> Flag | None:
    """Whether images in a batch of several gave other logits ``[n, k]`` than each alone."""
    return kinds.BATCH_DEPENDENT() if not _apart(together, alone) <= _OF_THE_BATCH else None


def rescaling(logits: Tensor) -> float:
    """A power of two by which attacks should multiply logits ``[n, k]``; 1 where they are of a usual size.

    Differences far below 1 are lost where a loss in float32 adds something to them, and far above it the cross-entropy
    has no gradient. A power of two changes no digit and no order.
    """
    wide = logits.double()
    top = wide.topk(2, dim=1).values
    differ, ahead = float((wide.amax(1) - wide.amin(1)).median()), float((top[:, 0] - top[:, 1]).median())
    if 0 < differ < _SMALL:
        return float(2.0 ** round(math.log2(_USUAL / differ)))
    if ahead > _LARGE:
        return float(2.0 ** -round(math.log2(ahead / _USUAL)))
    return 1.0


def state_kept(before: Tensor, after: Tensor) -> Flag | None:
    """Whether the logits ``[n, k]`` of the same images are others after the attack."""
    same = torch.allclose(after.to(before), before, rtol=1e-3, atol=1e-3)
    return None if same else kinds.STATE_KEPT()


def gradient_free_gain(before: int, after: int, of: int) -> Flag:
    """What an attack without gradients says of those before it, if it broke some of the ``before`` samples that these
    left; of ``of`` all in all."""
    broken = before - after
    share = max(broken / of, _OF_SURVIVORS * broken / before)
    kind = kinds.GRADIENT_MASKING if share > _GRADIENT_FREE_GAIN else kinds.GRADIENT_FREE_GAIN
    return kind(broken=broken, of=of)


def claims_rejected(rejected: int, judged: int) -> Iterator[Flag]:
    """Whether the judge did not confirm most of the points that an attack took for adversarial."""
    if rejected >= _MANY_REJECTED and 2 * rejected > judged:
        yield kinds.CLAIMS_REJECTED(rejected=rejected, judged=judged)


def log_probabilities(logits: Tensor) -> Flag | None:
    """Whether outputs ``[n, k]`` look like logarithms of probabilities."""
    return kinds.LOG_PROBABILITIES() if bool((logits.double().logsumexp(dim=1).abs() < 1e-5).all()) else None


def permuted(predicted: Tensor, y: Tensor, classes: int) -> Flag | None:
    """Whether predictions are right up to the names of the classes.

    Args:
        predicted, y: int64 ``[n]``.
    """
    if len(torch.unique(y)) < 3:
        return None
    table = torch.bincount(y * classes + predicted, minlength=classes * classes)[: classes * classes]
    counts = table.reshape(classes, classes).clone()
    right, otherwise, example = int(counts.diagonal().sum()), 0, ""
    for _ in range(classes):
        best = int(counts.argmax())
        count, (label, called) = int(counts.flatten()[best]), divmod(best, classes)
        if count == 0:
            break
        otherwise += count
        example = example or (f"images labelled {label} are taken for {called}" if label != called else "")
        counts[label] = 0
        counts[:, called] = 0
    # by chance alone the best names of few samples fit a good share of them
    if otherwise < 0.7 * len(y) or otherwise - right < 0.35 * len(y):
        return None
    return kinds.LABELS_PERMUTED(correct=right, of=len(y), otherwise=otherwise, example=example)


def probabilities(logits: Tensor) -> Flag | None:
    """Whether outputs ``[n, k]`` look like probabilities rather than logits."""
    inside = bool(logits.min() > -1e-5 and logits.max() < 1 + 1e-5)
    return kinds.PROBABILITIES() if inside and bool(((logits.sum(dim=1) - 1).abs() < 1e-5).all()) else None


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a state dict; a module's extra state may be anything."""
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def _apart(a: Tensor, b: Tensor) -> float:
    """Largest distance between rows of ``a`` and ``b`` after scaling each to length one."""
    return float((F.normalize(a.double(), dim=1) - F.normalize(b.double(), dim=1)).norm(dim=1).max())
