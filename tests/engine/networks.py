"""Small networks that behave, and some that do not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SHAPE = (3, 8, 8)
CLASSES = 6


def network(
    seed: int = 0, dtype: torch.dtype = torch.float32, *, classes: int = CLASSES, gain: float = 1.0
) -> nn.Module:
    """A seeded convolutional network with batch norms whose statistics are not trivial."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(8),
            nn.LeakyReLU(0.1),
            nn.Flatten(),
            nn.Linear(8 * 16, classes),
        )
        model(torch.rand(64, *SHAPE))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.3, 0.3)
        nn.init.normal_(model[-1].weight, std=gain)
    return model.to(dtype).eval()


def samples(model: nn.Module, n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random images with the model's own predictions as labels, but for the last tenth."""
    dtype = next(model.parameters()).dtype
    x = torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    wrong = n // 10
    if wrong:
        y[-wrong:] = (y[-wrong:] + 1) % CLASSES
    return x, y
