"""Adversarial fine-tuning of a natural network's BN layers and of nothing else.

Walter, Stutz & Schiele 2022, "On Fragile Features and Batch Normalization in Adversarial Training"
(arXiv 2204.12393).
"""

from __future__ import annotations

from harness.regimes._base import Regime
from harness.regimes._protocols import WALTER

__all__ = ["bn_ft"]

bn_ft = Regime(
    name="bn-ft",
    summary="the BN layers of a natural network, adversarially",
    source="Walter 2022",
    trained=("bn-gamma", "bn-beta"),
    start="parent",
    parent="natural",
    loss="adversarial",
    protocol=WALTER,
)
