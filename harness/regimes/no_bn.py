"""Natural training without normalisers, by Fixup.

Galloway et al. 2019, "Batch Normalization is a Cause of Adversarial Vulnerability" (arXiv 1905.02161).
"""

from __future__ import annotations

from harness.regimes._base import Regime
from harness.regimes._protocols import GALLOWAY

__all__ = ["no_bn"]

no_bn = Regime(
    name="no-bn",
    summary="everything, without normalisers (Fixup), on clean images",
    source="Galloway 2019",
    norm_layer="fixup",
    protocol=GALLOWAY,
)
