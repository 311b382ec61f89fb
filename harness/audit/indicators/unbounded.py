"""Whether an attack without a ball breaks every sample, as it must where gradients lead somewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.audit import kinds
from harness.audit.attacked import Attacked, Indicator
from harness.audit.flags import Flag
from harness.audit.trials import Trial, count

__all__ = ["unbounded"]

_MAY_SURVIVE = 0.1


def _probe(attacked: Attacked, name: str) -> Iterator[Trial]:
    """Attack some survivors within [0, 1] only."""
    if not attacked.differentiable:
        return
    rows = attacked.rows("survivors")
    x, y = attacked.samples(rows)
    if len(x):
        yield from attacked.trials(name, "survivors", rows, {"broken": attacked.unbounded(x, y)})


def _flags(trials: Sequence[Trial]) -> Iterator[Flag]:
    left = len(trials) - count(trials, "broken")
    if left > _MAY_SURVIVE * len(trials):
        yield kinds.UNBOUNDED_FAILS(left=left, of=len(trials))


unbounded = Indicator((kinds.UNBOUNDED_FAILS,), _probe, _flags)
