"""Natural training with instance normalization."""

from __future__ import annotations

from harness.regimes._base import Regime

__all__ = ["in_"]

in_ = Regime(name="in", summary="everything, with instance normalization, on clean images", norm_layer="instance")
