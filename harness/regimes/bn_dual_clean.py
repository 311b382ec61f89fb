"""`bn_dual` that deploys the clean branch.

AdvProp: Xie et al. 2020, "Adversarial Examples Improve Image Recognition" (arXiv 1911.09665).
"""

from __future__ import annotations

from harness.regimes._base import Regime

__all__ = ["bn_dual_clean"]

bn_dual_clean = Regime(
    name="bn-dual-clean",
    summary="the same as bn-dual, deploying the clean branch",
    source="Xie 2020 (AdvProp)",
    loss="mixed",
    norm_layer="dual",
    deploy="clean",
)
