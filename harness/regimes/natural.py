"""Natural training of the whole network: the parent of the fine-tuning regimes."""

from __future__ import annotations

from harness.regimes._base import Regime

__all__ = ["natural"]

natural = Regime(name="natural", summary="everything, on clean images")
