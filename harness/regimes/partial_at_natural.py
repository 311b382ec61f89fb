"""Everything naturally, then the BN layers adversarially, then everything adversarially.

Zeise & Vlaar 2025, "BatchNorm Layers have an Outsized Effect on Adversarial Robustness" (NeurIPS 2025
workshop on Optimization for Machine Learning); the shares are ours.
"""

from __future__ import annotations

from harness.regimes._base import Phase, Regime
from harness.regimes._protocols import ZEISE

__all__ = ["partial_at_natural"]

partial_at_natural = Regime(
    name="partial-at-natural",
    summary="everything on clean images, then the BN layers, then everything adversarially",
    source="Zeise & Vlaar 2025",
    loss="adversarial",
    phases=(
        Phase(share=1, trained=("all",), loss="natural"),
        Phase(share=1, trained=("bn-gamma", "bn-beta")),
        Phase(share=1, trained=("all",)),
    ),
    protocol=ZEISE,
)
