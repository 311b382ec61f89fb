"""In which arithmetic passes run while training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from harness.training.settings import Settings
from harness.util.torch_state import float32_precision

__all__ = ["autocast", "chosen", "products"]


def chosen(settings: Settings, device: torch.device) -> str:
    """fp32, tf32 or bf16."""
    if settings.precision == "auto":
        return "bf16" if device.type == "cuda" else "fp32"
    return settings.precision


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Passes in bfloat16 where that was chosen; weights and their gradients stay in float32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Whether float32 products may be rounded to TF32; afterwards it is as it was before."""
    with float32_precision("cuda", tf32=precision == "tf32"), float32_precision("cpu"):
        yield
