"""Adversarial training with adversarial weight perturbation on the late layers.

Nguyen et al. 2024 perturb chosen layer groups (gamma 0.01); here from the third group on. Tensors of one
dimension, so BN's scales and shifts, are never perturbed.
"""

from __future__ import annotations

from harness.regimes._base import Awp, Regime
from harness.regimes._protocols import NGUYEN

__all__ = ["awp_layers"]

awp_layers = Regime(
    name="awp-layers",
    summary="everything, adversarially, weights of the late layers perturbed",
    source="Nguyen 2024",
    loss="adversarial",
    awp=Awp(gamma=0.01, part=("groups:3:", "-head")),
    protocol=NGUYEN,
)
