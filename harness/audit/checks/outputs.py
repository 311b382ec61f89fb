"""Whether the outputs are logits, or probabilities of some kind."""

from __future__ import annotations

from collections.abc import Iterator

from harness.audit import kinds
from harness.audit import model as checks
from harness.audit.flags import Flag
from harness.audit.subject import Subject

__all__ = ["outputs"]

_SATURATED = 0.9


def outputs(subject: Subject) -> Iterator[Flag]:
    """Look at the outputs on clean images."""
    found = checks.probabilities(subject.logits) or checks.log_probabilities(subject.logits)
    if found:
        yield found
    out = subject.logits.double()
    if not found and bool(out.min() >= 0) and bool(out.max() <= 1):
        share = float(((out < 1e-4) | (out > 1 - 1e-4)).double().mean())
        if share >= _SATURATED:
            yield kinds.OUTPUTS_SATURATED(share=round(share, 3))
