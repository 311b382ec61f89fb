"""PGD, 20 steps, one random start: the usual figure of papers."""

from __future__ import annotations

from harness.suites._base import Step, Suite
from harness.threat import ThreatModel

__all__ = ["pgd_20"]


def pgd_20(threat: ThreatModel) -> Suite:
    """PGD on the cross-entropy."""
    return Suite("pgd-20", (Step("pgd-20", "pgd", {"steps": 20, "restarts": 1}),))
