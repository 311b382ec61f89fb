"""PGD, 100 steps, 5 random restarts; broken samples leave at once."""

from __future__ import annotations

from harness.suites._base import Step, Suite
from harness.threat import ThreatModel

__all__ = ["pgd"]


def pgd(threat: ThreatModel) -> Suite:
    """PGD on the cross-entropy."""
    return Suite("pgd", (Step("pgd", "pgd", {"steps": 100, "restarts": 5}),))
