"""Whether an answer depends on the images that share its batch, on their number or on their order."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.audit.subject import Subject, apart

__all__ = ["batch"]

_ROUNDING = 1e-3
_SINGLES = 4


def batch(subject: Subject) -> Iterator[Flag]:
    """Compare the answers on all images with those in other batches, and those at points inside the threat model."""
    x, n = subject.x, len(subject.x)
    rows, together = subject.full_batch
    images = rows < n
    alone = torch.arange(0, n, -(-n // _SINGLES), device=x.device)

    def differ(how: str, rows: torch.Tensor, found: torch.Tensor, expected: torch.Tensor) -> Iterator[Flag]:
        samples = len(torch.unique(rows[apart(expected[rows], found) > _ROUNDING]))
        if samples:
            yield kinds.BATCH_DEPENDENT(compared=how, samples=samples, of=len(torch.unique(rows)))

    shuffled = f"in a batch of {len(rows)}, in another order"
    yield from _first(
        [
            *differ(shuffled, rows[images], together[images], subject.logits),
            *differ(
                "alone",
                alone,
                torch.cat([subject.ask(x[row : row + 1]) for row in alone.tolist()]),
                subject.logits,
            ),
            *differ(
                "alone, at points inside the threat model",
                alone,
                torch.cat([subject.ask(subject.points[row : row + 1]) for row in alone.tolist()]),
                subject.at_points,
            ),
        ]
    )


def _first(flags: list[Flag]) -> list[Flag]:
    """One way of comparing that shows it is enough."""
    return flags[:1]
