"""Another backend in batches of a few fixed sizes, as torch.compile and CUDA graphs need them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.backends._base import Backend

__all__ = ["static"]


def static(backend: Backend, *, largest: int, compiled: bool, graphs: bool) -> Backend:
    """A backend compiled, or as CUDA graphs, or both.

    Args:
        largest: rows of the largest batch.
    """
    network = backend.network
    if compiled:
        network = torch.compile(network, dynamic=False)  # type: ignore[assignment]
    # torch.compile gives up on code that it has compiled for eight sizes, with and without gradients
    padded = _Padded(network, largest=largest, sizes=4 if compiled else 8, graphs=graphs)
    notes = [name for name, used in (("compile", compiled), ("cuda-graphs", graphs)) if used]
    return replace(backend, network=padded, notes=(*backend.notes, *notes), made_by_use=compiled or graphs)


class _Padded(nn.Module):
    """A network that only ever sees a few batch sizes.

    Batches are padded with zeros to the next size. A sample's output does not depend on the rest of its batch, so the
    padding is cut off again.

    Args:
        network: from images to logits.
        largest: the largest batch; the sizes are this divided into ``sizes`` equal steps.
        graphs: replay each size as a CUDA graph, so that a pass is one launch.
    """

    def __init__(self, network: nn.Module, *, largest: int, sizes: int, graphs: bool) -> None:
        super().__init__()
        self.network = network
        self.step, self.sizes = -(-largest // sizes), sizes
        self.graphs = graphs
        self._captured: dict[tuple[int, ...], Callable[..., Any]] = {}
        # outputs and gradients are copied at once, so that all sizes may use the same memory
        self._pool = torch.cuda.graph_pool_handle() if graphs else None

    def forward(self, x: Tensor) -> Tensor:
        missing = -len(x) % self._step(len(x))
        padded = F.pad(x, (0, 0) * (x.dim() - 1) + (0, missing)) if missing else x
        out: Tensor = self._captured_for(padded)(padded) if self.graphs else self.network(padded)
        # the output of a graph is memory that its next replay overwrites
        return out[: len(x)].clone()

    def _step(self, rows: int) -> int:
        """What sizes are multiples of: coarser where a batch is larger than was foreseen, so that sizes stay few."""
        step = self.step
        while rows > self.sizes * step:
            step *= 2
        return step

    def _captured_for(self, x: Tensor) -> Callable[..., Any]:
        shape = tuple(x.shape)
        if shape not in self._captured:

            def call(images: Tensor) -> Tensor:
                # a function, because a module would have its forward replaced by that of this one size
                out: Tensor = self.network(images)
                return out

            sample = torch.zeros_like(x, memory_format=torch.preserve_format).requires_grad_()
            # the first pass of a size may be one without gradients, and its graph would have no backward pass
            with torch.enable_grad(), warnings.catch_warnings():
                # that capturing happens on a stream of its own
                warnings.filterwarnings("ignore", "The AccumulateGrad node's stream does not match")
                self._captured[shape] = torch.cuda.make_graphed_callables(call, (sample,), pool=self._pool)
        return self._captured[shape]
