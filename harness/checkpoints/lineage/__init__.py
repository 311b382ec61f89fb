"""What a checkpoint's BN layers hold, and what really changed since its parent.

Everything here is read off the weights; the manifest's word is what is checked.
"""

from __future__ import annotations

from harness.checkpoints.lineage._claim import Lineage, parent_of, verify_claim
from harness.checkpoints.lineage._difference import Difference, Part, difference
from harness.checkpoints.lineage._layers import NEAR_ZERO, BnLayer, Summary, bn_report
from harness.checkpoints.lineage._regimes import consistent_regimes, violations

__all__ = [
    "NEAR_ZERO",
    "BnLayer",
    "Difference",
    "Lineage",
    "Part",
    "Summary",
    "bn_report",
    "consistent_regimes",
    "difference",
    "parent_of",
    "verify_claim",
    "violations",
]
