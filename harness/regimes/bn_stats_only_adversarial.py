"""A parent whose running statistics are re-estimated on attacked images; nothing is trained.

The images are crafted against the parent as it was.
"""

from __future__ import annotations

from harness.regimes._base import Regime

__all__ = ["bn_stats_only_adversarial"]

bn_stats_only_adversarial = Regime(
    name="bn-stats-only-adversarial",
    summary="nothing; BN statistics re-estimated on adversarial examples",
    source="restat studies",
    trained=(),
    start="parent",
    bn_statistics="re-estimated-adversarial",
)
