"""Batches of a few sizes are the same batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.backends import plain, static
from tests.engine.networks import SHAPE, network


def test_padded_batches_are_the_same_batches() -> None:
    sizes: list[int] = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network(dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            out: Tensor = self.inner(x)
            return out

    model = Counting()
    padded = static(plain(model), largest=64, compiled=False, graphs=False)
    x = torch.rand(64, *SHAPE, dtype=torch.float64)
    for rows in (1, 8, 9, 30, 64):
        leaf = x[:rows].clone().requires_grad_()
        out = padded.network(leaf)
        assert torch.allclose(out, model.inner(x[:rows]), atol=1e-12)
        (gradient,) = torch.autograd.grad(out.square().sum(), leaf)
        again = x[:rows].clone().requires_grad_()
        (expected,) = torch.autograd.grad(model.inner(again).square().sum(), again)
        assert torch.allclose(gradient, expected, atol=1e-12)
    assert sorted(set(sizes)) == [8, 16, 32, 64]


def test_batches_larger_than_foreseen_come_in_few_sizes_too() -> None:
    sizes: set[int] = set()

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.add(len(x))
            return x.flatten(1)

    padded = static(plain(Counting()), largest=64, compiled=False, graphs=False)
    for rows in range(1, 513):
        assert len(padded.network(torch.zeros(rows, 2))) == rows
    assert sizes == {*range(8, 65, 8), *range(80, 129, 16), *range(160, 257, 32), *range(320, 513, 64)}
