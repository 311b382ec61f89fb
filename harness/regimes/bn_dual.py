"""Clean and adversarial images, each through BN layers of their own.

AdvProp: Xie et al. 2020, "Adversarial Examples Improve Image Recognition" (arXiv 1911.09665), which
deploys the clean branch; here the adversarial one is deployed.
"""

from __future__ import annotations

from harness.regimes._base import Regime

__all__ = ["bn_dual"]

bn_dual = Regime(
    name="bn-dual",
    summary="everything, clean and adversarial images through BN sets of their own",
    source="Xie 2020 (AdvProp)",
    loss="mixed",
    norm_layer="dual",
    deploy="adversarial",
)
