"""Adversarial training with batch normalization that has no scale and shift."""

from __future__ import annotations

from harness.regimes._base import Regime

__all__ = ["bn_no_affine"]

bn_no_affine = Regime(
    name="bn-no-affine",
    summary="everything, BN without gamma and beta, adversarially",
    loss="adversarial",
    norm_layer="batch-no-affine",
)
