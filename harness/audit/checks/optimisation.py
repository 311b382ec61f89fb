"""Whether the forward pass computes gradients itself, as in a loop of optimisation (a dynamic defence)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.audit.subject import Subject

__all__ = ["optimisation"]


def optimisation(subject: Subject) -> Iterator[Flag]:
    """Count the backward passes that a forward pass without gradients makes."""
    with _counted() as calls:
        subject.ask(subject.x[:2])
    if calls:
        yield kinds.DYNAMIC_DEFENCE(backward_passes=len(calls))


@contextmanager
def _counted() -> Iterator[list[None]]:
    """A list that gets an entry for every backward pass, however it is begun."""
    calls: list[None] = []
    # what torch.autograd.grad, torch.autograd.backward and Tensor.backward have in common
    engine: Any = torch.autograd
    run = engine._engine_run_backward

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return run(*args, **kwargs)

    engine._engine_run_backward = counting
    try:
        yield calls
    finally:
        engine._engine_run_backward = run
