"""Adversarial training of the whole network.

Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks" (arXiv 1706.06083);
the examples are crafted in eval mode. `at_full_train_mode` crafts as that paper's code does.
"""

from __future__ import annotations

from harness.regimes._base import Regime
from harness.regimes._protocols import MADRY

__all__ = ["at_full"]

at_full = Regime(
    name="at-full",
    summary="everything, on adversarial examples",
    source="Madry 2018",
    loss="adversarial",
    protocol=MADRY,
)
