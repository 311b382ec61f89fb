"""Whether the images are in the range that the model was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.audit.subject import Subject

__all__ = ["input_range"]

_GOOD, _FEWEST, _GAIN = 0.8, 8, 0.3
"""Accuracy that needs no explanation; images below which accuracy says little; the gain that explains something."""

_NORMALIZATIONS: dict[int, dict[str, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    1: {"MNIST's": ((0.1307,), (0.3081,)), "0.5 and 0.5": ((0.5,), (0.5,))},
    3: {
        "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "CIFAR-10's": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
        "0.5 and 0.5": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    },
}


def input_range(subject: Subject) -> Iterator[Flag]:
    """Where few images are classified correctly, undo what may have been done twice, or do what may be missing."""
    brightest = float(subject.x.max())
    if brightest <= 1 / 255 + 1e-6:
        yield kinds.IMAGES_DARK(brightest=float(f"{brightest:.3g}"))
    yield from _constants(subject)
    correct = _correct(subject, subject.logits)
    if len(subject.x) < _FEWEST or correct >= _GOOD * len(subject.x):
        return
    found = {what: _correct(subject, subject.ask(change(subject.x))) for what, change in _variants(subject.x).items()}
    best = max(found, key=lambda what: found[what])
    if found[best] - correct >= _GAIN * len(subject.x):
        yield kinds.INPUT_RANGE(correct=correct, of=len(subject.x), otherwise=found[best], what=best)


def _constants(subject: Subject) -> Iterator[Flag]:
    """The constants of a model of this package, whose images are in [0, 1]."""
    normalization = getattr(subject.model, "normalization", None)
    mean, deviation = (getattr(normalization, name, None) for name in ("mean", "std"))
    if isinstance(mean, tuple) and isinstance(deviation, tuple) and max(mean) > 1 and max(deviation) > 1:
        yield kinds.CONSTANTS_FOR_BYTES(mean=float(max(mean)), deviation=float(max(deviation)))


def _correct(subject: Subject, logits: Tensor) -> int:
    return int((logits.argmax(dim=1) == subject.y).sum())


def _variants(x: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """What to change images by, in the words of the flag."""
    variants: dict[str, Callable[[Tensor], Tensor]] = {
        "they are multiplied by 255": lambda images: images * 255,
        "they are inverted": lambda images: 1 - images,
    }
    channels = x.shape[1] if x.dim() == 4 else 0
    if channels == 3:
        variants["their channels are reversed (BGR)"] = lambda images: images.flip(1)
    for name, (mean, deviation) in _NORMALIZATIONS.get(channels, {}).items():
        m, s = (torch.tensor(values, dtype=x.dtype, device=x.device).view(1, -1, 1, 1) for values in (mean, deviation))
        variants[f"they are normalised by {name} constants"] = lambda images, m=m, s=s: (images - m) / s  # type: ignore[misc]
        variants[f"a normalisation by {name} constants is undone"] = lambda images, m=m, s=s: images * s + m  # type: ignore[misc]
    return variants
