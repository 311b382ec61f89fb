"""A small nonlinear network and samples at different distances from its boundaries, for tests of attacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.attacks import Attack, Batch
from tests.support import batch_of, drive

SHAPE = (3, 6, 6)


def network(classes: int = 6, *, seed: int = 3, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Random weights; smooth, so that gradients vanish nowhere."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(32, classes)
    ).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 2 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.1
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * spread)
    return model.requires_grad_(False).eval()


def samples(model: nn.Module, n: int = 40, *, seed: int = 7) -> Batch:
    """Random images, the edges of the box among their values; their classes are the model's predictions."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(n, *SHAPE, generator=generator, dtype=torch.float64) * 1.2 - 0.1).clamp(0, 1)
    x = x.to(next(model.parameters()))
    return batch_of(model, x, model(x).argmax(dim=1))


def broken(attack: Attack, model: nn.Module, batch: Batch) -> Tensor:
    """Which samples the attack claims."""
    return drive(attack, model, batch)[0]
