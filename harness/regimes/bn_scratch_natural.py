"""Natural training of the BN layers of a random network.

Frankle, Schwab & Morcos 2021, "Training BatchNorm and Only BatchNorm" (arXiv 2003.00152).
"""

from __future__ import annotations

from harness.regimes._base import Regime
from harness.regimes._protocols import FRANKLE

__all__ = ["bn_scratch_natural"]

bn_scratch_natural = Regime(
    name="bn-scratch-natural",
    summary="the BN layers of a random network, on clean images",
    source="Frankle 2021",
    trained=("bn-gamma", "bn-beta"),
    protocol=FRANKLE,
)
