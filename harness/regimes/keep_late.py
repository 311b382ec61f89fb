"""A network whose late layers are kept while the early ones are reset and trained naturally.

The counterpart of `keep_early`: kept is everything from the fourth layer group on (the last block or
stage and the head).

Bakiskan et al. 2022, "Early Layers Are More Important For Adversarial Robustness".
"""

from __future__ import annotations

from harness.regimes._base import Regime
from harness.regimes._protocols import BAKISKAN

__all__ = ["keep_late"]

keep_late = Regime(
    name="keep-late",
    summary="the early layers of an adversarial network, reset, on clean images",
    source="Bakiskan 2022",
    trained=("groups::3",),
    start="parent",
    parent="at-full",
    reset=("groups::3",),
    bn_statistics="moving-where-trained",
    protocol=BAKISKAN,
)
