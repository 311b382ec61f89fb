"""Adversarial training whose BN layers have an optimiser of their own: Adam, without weight decay.

Zeise & Vlaar 2025, "BatchNorm Layers have an Outsized Effect on Adversarial Robustness" (NeurIPS 2025
workshop on Optimization for Machine Learning); the choice of optimiser is ours.
"""

from __future__ import annotations

from harness.regimes._base import PartOptimizer, Regime
from harness.regimes._protocols import ZEISE

__all__ = ["bn_optim"]

bn_optim = Regime(
    name="bn-optim",
    summary="everything, adversarially, BN by Adam without weight decay",
    source="Zeise & Vlaar 2025",
    loss="adversarial",
    optimizers=(PartOptimizer(part=("bn-gamma", "bn-beta"), kind="adam", learning_rate=0.01, weight_decay=0.0),),
    protocol=ZEISE,
)
