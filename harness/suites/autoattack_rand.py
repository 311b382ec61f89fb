"""AutoAttack's version for randomised models, with 20 passes a gradient, on this engine."""

from __future__ import annotations

from harness.suites._autoattack_steps import apgd
from harness.suites._base import Suite
from harness.threat import ThreatModel

__all__ = ["autoattack_rand"]


def autoattack_rand(threat: ThreatModel) -> Suite:
    """APGD on the mean of 20 gradients."""
    return Suite("autoattack-rand", (apgd("ce", eot=20), apgd("dlr", eot=20)), expects_random=True)
