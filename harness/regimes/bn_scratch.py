"""Adversarial training of the BN layers of a random network.

Walter, Stutz & Schiele 2022, "On Fragile Features and Batch Normalization in Adversarial Training"
(arXiv 2204.12393).
"""

from __future__ import annotations

from harness.regimes._base import Regime
from harness.regimes._protocols import WALTER

__all__ = ["bn_scratch"]

bn_scratch = Regime(
    name="bn-scratch",
    summary="the BN layers of a random network, adversarially",
    source="Walter 2022",
    trained=("bn-gamma", "bn-beta"),
    loss="adversarial",
    protocol=WALTER,
)
