"""Adversarial training without normalisers, by scaled weight standardisation; half of the loss is clean.

NoFrost: Wang et al. 2022, "Removing Batch Normalization Boosts Adversarial Training" (arXiv 2207.01156).
"""

from __future__ import annotations

from harness.regimes._base import Regime
from harness.regimes._protocols import WANG

__all__ = ["at_no_bn"]

at_no_bn = Regime(
    name="at-no-bn",
    summary="everything, without normalisers (weight standardised), half clean and half adversarial",
    source="Wang 2022 (NoFrost)",
    loss="mixed",
    norm_layer="weight-standardized",
    protocol=WANG,
)
