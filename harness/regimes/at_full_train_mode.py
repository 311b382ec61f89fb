"""Adversarial training whose crafting passes use and update the batch statistics.

Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks" (arXiv 1706.06083).
"""

from __future__ import annotations

from harness.regimes._base import Regime
from harness.regimes._protocols import MADRY

__all__ = ["at_full_train_mode"]

at_full_train_mode = Regime(
    name="at-full-train-mode",
    summary="everything, on examples crafted in train mode",
    source="Madry 2018",
    loss="adversarial",
    crafting_mode="train",
    protocol=MADRY,
)
