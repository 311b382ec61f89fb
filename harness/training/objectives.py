"""Training losses, and what crafting raises under each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch.nn.functional as F
from torch import Tensor

from harness.regimes._base import Conduct

__all__ = ["OBJECTIVES", "Objective", "Passes"]


@dataclass(frozen=True)
class Passes:
    """Forward passes through the model, ``[n, ...] -> [n, k]``: where the two kinds of image have BN layers
    of their own, each pass goes through its own."""

    clean: Callable[[Tensor], Tensor]
    adversarial: Callable[[Tensor], Tensor]


class Objective(ABC):
    """A training loss."""

    needs_examples: bool = True
    needs_clean_logits: bool = False

    @abstractmethod
    def loss(
        self, passes: Passes, x: Tensor, points: Tensor, y: Tensor, stage: Conduct, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """The mean loss of a batch, and the logits that say how well it is classified.

        Args:
            x: images. points: adversarial examples of them (the images again where none are needed).
        """

    def raises(self, y: Tensor, clean_logits: Tensor | None) -> Callable[[Tensor], Tensor]:
        """What crafting raises, summed over samples: cross-entropy, where the loss says nothing else."""
        return lambda logits: F.cross_entropy(logits, y, reduction="sum")


class _Natural(Objective):
    needs_examples = False

    def loss(
        self, passes: Passes, x: Tensor, points: Tensor, y: Tensor, stage: Conduct, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        logits = passes.clean(x)
        return F.cross_entropy(logits, y, label_smoothing=smoothing), logits


class _Adversarial(Objective):
    def loss(
        self, passes: Passes, x: Tensor, points: Tensor, y: Tensor, stage: Conduct, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        logits = passes.adversarial(points)
        return F.cross_entropy(logits, y, label_smoothing=smoothing), logits


class _Mixed(Objective):
    def loss(
        self, passes: Passes, x: Tensor, points: Tensor, y: Tensor, stage: Conduct, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        clean = F.cross_entropy(passes.clean(x), y, label_smoothing=smoothing)
        logits = passes.adversarial(points)
        adversarial = F.cross_entropy(logits, y, label_smoothing=smoothing)
        return clean + stage.adversarial_weight * (adversarial - clean), logits


class _Trades(Objective):
    """Zhang et al. 2019, "Theoretically Principled Trade-off between Robustness and Accuracy" (arXiv
    1901.08573): clean cross-entropy plus the divergence of the attacked output from the clean one."""

    needs_clean_logits = True

    def loss(
        self, passes: Passes, x: Tensor, points: Tensor, y: Tensor, stage: Conduct, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        clean, logits = passes.clean(x), passes.adversarial(points)
        natural = F.cross_entropy(clean, y, label_smoothing=smoothing)
        return natural + stage.trades_beta * _divergence(clean, logits) / len(x), logits

    def raises(self, y: Tensor, clean_logits: Tensor | None) -> Callable[[Tensor], Tensor]:
        if clean_logits is None:
            raise TypeError("TRADES raises a divergence from the clean logits, and none were given")
        return lambda logits: _divergence(clean_logits, logits)


def _divergence(clean: Tensor, other: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the other output from the clean one, summed over samples."""
    return F.kl_div(other.log_softmax(dim=1), clean.log_softmax(dim=1), reduction="sum", log_target=True)


OBJECTIVES: Mapping[str, Objective] = MappingProxyType(
    {"natural": _Natural(), "adversarial": _Adversarial(), "mixed": _Mixed(), "trades": _Trades()}
)
