"""Separate batch norms for clean and for adversarial batches.

AdvProp (Xie et al. 2020, "Adversarial Examples Improve Image Recognition", arXiv 1911.09665): the two
kinds of image have different statistics, so each keeps its own scale, shift and running statistics,
and one of the branches is deployed. See `harness.models.norm_layers.use_branch` and `deploy_branch`.
"""

from __future__ import annotations

from harness.models.norm_layers._base import NormLayer
from harness.models.norm_layers._branches import DualBatchNorm2d

__all__ = ["dual"]

dual = NormLayer("dual", DualBatchNorm2d)
