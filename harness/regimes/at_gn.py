"""Adversarial training with group normalization."""

from __future__ import annotations

from harness.regimes._base import Regime

__all__ = ["at_gn"]

at_gn = Regime(
    name="at-gn",
    summary="everything, with group normalization, adversarially",
    loss="adversarial",
    norm_layer="group",
)
