"""Natural training with group normalization."""

from __future__ import annotations

from harness.regimes._base import Regime

__all__ = ["gn"]

gn = Regime(
    name="gn",
    summary="everything, with group normalization, on clean images",
    norm_layer="group",
)
