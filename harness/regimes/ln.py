"""Natural training with layer normalization."""

from __future__ import annotations

from harness.regime import Regime

__all__ = ["ln"]

ln = Regime(
    name="ln",
    summary="everything, with layer normalization, on clean images",
    norm_layer="layer",
)
