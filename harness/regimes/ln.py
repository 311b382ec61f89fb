"""Natural training with layer normalization."""

from __future__ import annotations

from harness.regimes._base import Regime

__all__ = ["ln"]

ln = Regime(
    name="ln",
    summary="everything, with layer normalization, on clean images",
    norm_layer="layer",
)
