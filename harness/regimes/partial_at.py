"""Partial adversarial pre-training: the BN layers adversarially first, then everything.

Zeise & Vlaar 2025, "BatchNorm Layers have an Outsized Effect on Adversarial Robustness" (NeurIPS 2025
workshop on Optimization for Machine Learning); the shares are ours.
"""

from __future__ import annotations

from harness.regimes._base import Phase, Regime
from harness.regimes._protocols import ZEISE

__all__ = ["partial_at"]

partial_at = Regime(
    name="partial-at",
    summary="the BN layers of a random network, then everything, adversarially",
    source="Zeise & Vlaar 2025",
    loss="adversarial",
    phases=(Phase(share=1, trained=("bn-gamma", "bn-beta")), Phase(share=2, trained=("all",))),
    protocol=ZEISE,
)
