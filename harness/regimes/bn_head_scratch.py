"""`bn_scratch` with the output layer.

The separate switches for BN and output layer are those of Frankle, Schwab & Morcos 2021, "Training
BatchNorm and Only BatchNorm" (arXiv 2003.00152).
"""

from __future__ import annotations

from harness.regimes._base import Regime
from harness.regimes._protocols import WALTER

__all__ = ["bn_head_scratch"]

bn_head_scratch = Regime(
    name="bn-head-scratch",
    summary="the BN layers and head of a random network, adversarially",
    source="Walter 2022, Frankle 2021",
    trained=("bn-gamma", "bn-beta", "head"),
    loss="adversarial",
    protocol=WALTER,
)
