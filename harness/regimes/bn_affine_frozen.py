"""Adversarial training of everything but the BN layers' scales and shifts.

The switch is that of Frankle, Schwab & Morcos 2021, "Training BatchNorm and Only BatchNorm" (arXiv
2003.00152).
"""

from __future__ import annotations

from harness.regimes._base import Regime

__all__ = ["bn_affine_frozen"]

bn_affine_frozen = Regime(
    name="bn-affine-frozen",
    summary="everything but gamma and beta, adversarially",
    source="Frankle 2021",
    trained=("all", "-bn-gamma", "-bn-beta"),
    loss="adversarial",
)
