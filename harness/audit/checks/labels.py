"""Whether the predictions are right up to the names of the classes."""

from __future__ import annotations

from collections.abc import Iterator

from harness.audit.flags import Flag
from harness.audit.model import permuted
from harness.audit.subject import Subject

__all__ = ["labels"]


def labels(subject: Subject) -> Iterator[Flag]:
    """Look for other names of the classes under which far more predictions are right."""
    classes = subject.logits.shape[1]
    if int(subject.y.max()) < classes:
        found = permuted(subject.logits.argmax(dim=1).cpu(), subject.y.cpu(), classes)
        yield from [found] if found else []
