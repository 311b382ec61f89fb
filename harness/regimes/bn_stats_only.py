"""A parent whose running statistics are re-estimated on clean images; nothing is trained."""

from __future__ import annotations

from harness.regimes._base import Regime

__all__ = ["bn_stats_only"]

bn_stats_only = Regime(
    name="bn-stats-only",
    summary="nothing; BN statistics re-estimated on clean images",
    source="restat studies",
    trained=(),
    start="parent",
    bn_statistics="re-estimated-clean",
)
