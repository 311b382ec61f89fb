"""What is done to images first, as numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from harness.errors import InvalidInput

__all__ = ["Normalization"]


@dataclass(frozen=True)
class Normalization:
    """Per channel, what is subtracted from an image in [0, 1] and what the rest is divided by.

    Raises:
        InvalidInput: not one finite mean and one finite, positive deviation a channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _numbers("mean", self.mean))
        object.__setattr__(self, "std", _numbers("std", self.std))
        if len(self.mean) != len(self.std):
            raise InvalidInput(
                f"a normalization has as many means as deviations; got {len(self.mean)} and {len(self.std)}"
            )
        if min(self.std) <= 0:
            raise InvalidInput(f"a normalization's deviations are positive, got {list(self.std)}")

    def close_to(self, other: Normalization) -> bool:
        """Whether both are the same up to the digits that people write down."""
        pairs = zip((*self.mean, *self.std), (*other.mean, *other.std), strict=True)
        return len(self.mean) == len(other.mean) and all(math.isclose(a, b, rel_tol=2e-3) for a, b in pairs)


def _numbers(what: str, values: Iterable[float]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise InvalidInput(f"a normalization's {what} is one number a channel, got {values!r}") from None
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise InvalidInput(f"a normalization's {what} is one finite number a channel, got {list(numbers)}")
    return numbers
