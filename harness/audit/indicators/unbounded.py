"""Whether an attack without a ball breaks every sample, as it must where gradients lead somewhere."""

from __future__ import annotations

from collections.abc import Iterator

from harness.audit import kinds
from harness.audit.attacked import Attacked
from harness.audit.flags import Flag

__all__ = ["unbounded"]

_MAY_SURVIVE = 0.1


def unbounded(attacked: Attacked) -> Iterator[Flag]:
    """Attack some survivors within [0, 1] only."""
    x, y = attacked.survivors
    if len(x) == 0:
        return
    left = len(x) - int(attacked.unbounded(x, y).sum())
    if left > _MAY_SURVIVE * len(x):
        yield kinds.UNBOUNDED_FAILS(left=left, of=len(x))
