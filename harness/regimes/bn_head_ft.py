"""`bn_ft` with the output layer: a control for how much a new read-out of the same features gives.

The separate switches for BN and output layer are those of Frankle, Schwab & Morcos 2021, "Training
BatchNorm and Only BatchNorm" (arXiv 2003.00152).
"""

from __future__ import annotations

from harness.regimes._base import Regime
from harness.regimes._protocols import WALTER

__all__ = ["bn_head_ft"]

bn_head_ft = Regime(
    name="bn-head-ft",
    summary="the BN layers and head of a natural network, adversarially",
    source="Walter 2022, Frankle 2021",
    trained=("bn-gamma", "bn-beta", "head"),
    start="parent",
    parent="natural",
    loss="adversarial",
    protocol=WALTER,
)
