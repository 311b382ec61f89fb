"""`partial_at` in the other order: everything adversarially first, then the BN layers.

Zeise & Vlaar 2025, "BatchNorm Layers have an Outsized Effect on Adversarial Robustness" (NeurIPS 2025
workshop on Optimization for Machine Learning); the shares are ours.
"""

from __future__ import annotations

from harness.regimes._base import Phase, Regime
from harness.regimes._protocols import ZEISE

__all__ = ["partial_at_reversed"]

partial_at_reversed = Regime(
    name="partial-at-reversed",
    summary="everything, then the BN layers alone, adversarially",
    source="Zeise & Vlaar 2025",
    loss="adversarial",
    phases=(Phase(share=2, trained=("all",)), Phase(share=1, trained=("bn-gamma", "bn-beta"))),
    protocol=ZEISE,
)
