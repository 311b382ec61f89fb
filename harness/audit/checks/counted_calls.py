"""Whether the forward pass changes a number that a module keeps, such as a count of its calls."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.audit.subject import Subject

__all__ = ["counted_calls"]


def counted_calls(subject: Subject) -> Iterator[Flag]:
    """Compare the numbers of all modules before and after a call. Tensors are compared by the audit as a whole."""
    before = _numbers(subject.model)
    subject.ask(subject.x[:2])
    after = _numbers(subject.model)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        yield kinds.CALLS_COUNTED(names=", ".join(changed[:5]))


def _numbers(model: nn.Module) -> dict[str, int | float]:
    return {
        f"{name}.{attribute}".lstrip("."): value
        for name, module in model.named_modules()
        for attribute, value in vars(module).items()
        if type(value) in (int, float)
    }
