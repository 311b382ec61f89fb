"""What a backend is: a network to attack in place of the plain model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Backend", "plain"]


@dataclass(frozen=True)
class Backend:
    """A network that makes an attack's passes.

    Attributes:
        network: from images ``[m, ...]`` to logits ``[m, k]``. layout: the memory format that it likes for images.
        notes: what was done to the model, in plain words; the first says which backend it is.
        precision: fp32, tf32 or bf16.
        made_by_use: the first passes of a batch size are slow, because they compile or capture what makes the others.
    """

    network: nn.Module
    layout: torch.memory_format
    notes: tuple[str, ...]
    precision: str = "fp32"
    made_by_use: bool = False

    @property
    def name(self) -> str:
        """Tells backends of the same model apart."""
        return " ".join(self.notes)

    def layout_of(self, images: Tensor) -> torch.memory_format:
        """The memory format for ``images``, which only images of four dimensions have a choice of."""
        return self.layout if images.dim() == 4 else torch.contiguous_format


def plain(model: nn.Module) -> Backend:
    """The model as it was loaded."""
    return Backend(model, torch.contiguous_format, ("plain",))
