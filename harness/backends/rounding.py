"""From how many rows on the answer for a row is the same, bit for bit, whatever rows are beside it.

Libraries choose their routines by the size of a batch: on a CPU a matrix product with one to three rows rounds
otherwise than one with more. Batches are therefore filled up where results must not depend on how samples are packed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.backends.choose import Spent
from harness.backends.passes import Passes
from harness.errors import NoGradient
from harness.util.tensors import identical

__all__ = ["fewest_rows"]

_FIRST = 4
_CALL = "while it was tried from how many rows on rounding is the same"


def fewest_rows(passes: Passes, x: Tensor) -> tuple[int, Spent]:
    """The smallest of 4, 8, 16, ... rows from which on batches of other sizes give the same bits, and what that took.

    Batches of so many rows, and of a few more, are compared with one of twice as many, with and without gradients.
    Where no number below the largest batch will do, all batches must be of that size.

    Args:
        x: ``[m, ...]`` images on the device, repeated where more rows are tried.
    """
    fewest, spent = _FIRST, 0
    while 2 * fewest <= passes.limit:
        sizes = (fewest, fewest + 1, 2 * fewest - 1)
        rows = x[torch.arange(2 * fewest, device=x.device) % len(x)]
        whole, parts = _answers(passes, rows), [_answers(passes, rows[:size]) for size in sizes]
        spent += len(rows) + sum(sizes)
        if all(_agree(whole, part) for part in parts):
            return fewest, Spent(2 * spent, spent)
        fewest *= 2
    return passes.limit, Spent(2 * spent, spent)


def _answers(passes: Passes, x: Tensor) -> tuple[Tensor, ...]:
    without_gradient = passes.logits(x, _CALL)
    try:
        logits, _, gradient = passes.gradient(x, lambda out, part: out.logsumexp(dim=1), _CALL)
    except NoGradient:
        return (without_gradient,)
    return without_gradient, logits, gradient


def _agree(whole: tuple[Tensor, ...], part: tuple[Tensor, ...]) -> bool:
    return all(identical(ours[: len(theirs)], theirs) for ours, theirs in zip(whole, part, strict=True))
