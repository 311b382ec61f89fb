"""One gradient step of the full radius."""

from __future__ import annotations

from harness.suites._base import Step, Suite
from harness.threat import ThreatModel

__all__ = ["fgsm"]


def fgsm(threat: ThreatModel) -> Suite:
    """FGSM from the clean image."""
    return Suite("fgsm", (Step("fgsm", "fgsm"),))
