"""A network whose early layers are kept while all the others are reset and trained naturally.

Bakiskan, Cekic & Madhow 2022: trained adversarially first, a network keeps more of its robustness in its
early layers than in its late ones. Kept are the first two layer groups (the stem and the first block or
stage); their BN statistics do not change.

Bakiskan et al. 2022, "Early Layers Are More Important For Adversarial Robustness".
"""

from __future__ import annotations

from harness.regimes._base import Regime
from harness.regimes._protocols import BAKISKAN

__all__ = ["keep_early"]

keep_early = Regime(
    name="keep-early",
    summary="all but the early layers of an adversarial network, reset, on clean images",
    source="Bakiskan 2022",
    trained=("groups:2:",),
    start="parent",
    parent="at-full",
    reset=("groups:2:",),
    bn_statistics="moving-where-trained",
    protocol=BAKISKAN,
)
