"""Normalisations that people use, by name."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import InvalidInput, UnknownName
from harness.models import Normalization

__all__ = ["NORMALIZATIONS", "normalization_of"]

NORMALIZATIONS: dict[str, Normalization | None] = {
    "none": None,
    "cifar10": Normalization((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar100": Normalization((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "imagenet": Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mnist": Normalization((0.1307,), (0.3081,)),
}
"""Name -> constants for images in [0, 1]; "none" says explicitly that there is none."""


def normalization_of(
    name: str | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[bool, Normalization | None]:
    """What was said about the normalisation: whether anything was, and what.

    Raises:
        UnknownName: a name that is not in the table.
        InvalidInput: a name and numbers, a mean without deviation, or numbers that cannot be meant.
    """
    if name is not None and (mean is not None or std is not None):
        raise InvalidInput("give a normalization by its name or by mean and std, not both")
    if name is not None:
        if name not in NORMALIZATIONS:
            raise UnknownName("normalization", name, NORMALIZATIONS)
        return True, NORMALIZATIONS[name]
    if (mean is None) != (std is None):
        raise InvalidInput("a normalization needs both mean and std")
    return (False, None) if mean is None or std is None else (True, Normalization(tuple(mean), tuple(std)))
