"""Which backend makes the passes, and how many rows go through it together: whatever is fastest on this machine.

Nothing is assumed about an architecture. Each backend is timed on a few images, forward and forward with backward; a
copy that is not faster than the plain model is not used. The best number of rows is found by doubling it as long as
that pays: a ResNet-32 likes 24 rows, whose intermediate results stay in the cache of a core, where a MobileNet or a
multilayer perceptron is up to a third faster with hundreds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from harness.backends._base import Backend
from harness.util.user_file import one_line

__all__ = ["FEWEST_ROWS", "Choice", "Spent", "Timing", "choose"]

FEWEST_ROWS = 24
"""Rows that go through a network together at least, where there are so many."""

_GAIN = 0.9
"""Twice the rows must cost at most this share of the time per row; less of a gain may be noise."""

_FORWARD_SHARE = 0.5
"""Weight of a forward pass alone against one with its backward pass: attacks make both kinds."""

_QUICK, _LONG = 0.05, 3.0
"""Seconds of one measurement: below, it is repeated; above, no larger number of rows is tried. A network with many
weights costs several times more per row with few rows, so that this must not be decided too soon."""

_FEW_ROWS = 4
"""Rows of the first measurement, which finds out whether more can be afforded."""

_MISSES = 2
"""Doublings without a gain, one after the other, that end the search: on a VGG 96 rows pay where 48 do not."""


@dataclass(frozen=True)
class Timing:
    """Seconds per row: of a forward pass alone, and of one with its backward pass."""

    forward: float
    both: float

    @property
    def cost(self) -> float:
        """One figure to compare by."""
        return self.both + _FORWARD_SHARE * self.forward


@dataclass
class Choice:
    """A backend, and how many rows it takes together.

    Attributes:
        notes: what the backend is, how it compares with the plain model, and what was not used.
    """

    backend: Backend
    micro_batch: int
    notes: list[str] = field(default_factory=list)


class Spent(NamedTuple):
    """Images that went through networks while these were timed."""

    forward: int
    backward: int


def choose(
    plain: Backend,
    copies: Sequence[Backend],
    images: Tensor,
    *,
    largest: int,
    clock: Callable[[], float] | None = None,
) -> tuple[list[Choice], Spent]:
    """Backends in the order in which to try them, the plain model last, and what it took to find out.

    Args:
        plain: the model as it was loaded. copies: faster ones, preferred in this order where they are equally fast.
        images: ``[m, ...]`` on the device; repeated where more rows are tried.
        largest: the most rows to try.
        clock: tells seconds; by default those of this process on a CPU, so that other processes do not disturb it.
    """
    timer = _Timer(images, clock or _clock(images))
    first = min(FEWEST_ROWS, largest)
    few = min(_FEW_ROWS, first)
    reference = timer.time(plain, few)
    rows = few if reference.cost * first > _LONG else first
    reference = timer.time(plain, rows) if rows != few else reference
    useful, notes = [], []
    for copy in copies:
        try:
            timing = timer.time(copy, rows)
        except Exception as error:  # what cannot be compiled or captured as a graph fails in its own way
            notes.append(f"not used: {copy.name} (failed: {one_line(error)})")
            continue
        if timing.cost < reference.cost:
            useful.append((copy, timing))
        else:
            notes.append(f"not used: {copy.name} ({_compared(timing, reference)})")
    choices = []
    for copy, timing in sorted(useful, key=lambda pair: pair[1].cost):
        rows = timer.best_rows(copy, first, timing, largest)
        choices.append(Choice(copy, rows, [*copy.notes, _compared(timing, reference), *notes]))
    # where a copy is used, the plain model only takes its place if that copy is wrong
    rows = timer.best_rows(plain, first, reference, largest) if not choices else choices[0].micro_batch
    choices.append(Choice(plain, rows, [*plain.notes, *notes]))
    return choices, timer.spent


def _clock(images: Tensor) -> Callable[[], float]:
    return time.perf_counter if images.is_cuda else time.process_time


def _compared(timing: Timing, reference: Timing) -> str:
    forward, both = reference.forward / timing.forward, reference.both / timing.both
    return f"{forward:.2f}x the plain model's speed forward, {both:.2f}x with backward"


class _Timer:
    """Times backends, and counts the passes that this takes."""

    def __init__(self, images: Tensor, clock: Callable[[], float]) -> None:
        self.images, self.clock = images, clock
        self.spent = Spent(0, 0)

    def best_rows(self, backend: Backend, rows: int, timing: Timing, largest: int) -> int:
        """Double the rows as long as that makes a row cheaper, or may at the next doubling.

        Passes with their backward pass say enough: what more rows save, they save in both kinds.
        """
        best, both, misses = rows, timing.both, 0
        least = both
        while 2 * rows <= largest and both * rows < _LONG and misses < _MISSES:
            rows *= 2
            both = self._per_row(_both, backend, self._rows(backend, rows))
            if both <= _GAIN * least:
                best, least, misses = rows, both, 0
            else:
                misses += 1
        return best

    def time(self, backend: Backend, rows: int) -> Timing:
        """Measure both kinds of passes."""
        x = self._rows(backend, rows)
        return Timing(self._per_row(_forward, backend, x), self._per_row(_both, backend, x))

    def _rows(self, backend: Backend, rows: int) -> Tensor:
        x = self.images[torch.arange(rows, device=self.images.device) % len(self.images)]
        return x.contiguous(memory_format=backend.layout_of(x))

    def _per_row(self, call: Callable[[Backend, Tensor], None], backend: Backend, x: Tensor) -> float:
        """Measure once, and where that was quick a second time, as the first also pays for what is made only once."""
        if backend.made_by_use:
            self._seconds(call, backend, x)
        seconds = self._seconds(call, backend, x)
        if seconds < _QUICK:
            seconds = min(seconds, self._seconds(call, backend, x))
        return max(seconds / len(x), 1e-9)

    def _seconds(self, call: Callable[[Backend, Tensor], None], backend: Backend, x: Tensor) -> float:
        began = self._now()
        call(backend, x)
        self.spent = Spent(self.spent.forward + len(x), self.spent.backward + len(x) * (call is _both))
        return self._now() - began

    def _now(self) -> float:
        if self.images.is_cuda:
            torch.cuda.synchronize(self.images.device)
        return self.clock()


def _forward(backend: Backend, x: Tensor) -> None:
    with torch.no_grad():
        backend.network(x)


def _both(backend: Backend, x: Tensor) -> None:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        torch.autograd.grad(backend.network(leaf).logsumexp(dim=1).sum(), leaf)
