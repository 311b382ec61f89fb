"""No attack: clean accuracy only."""

from __future__ import annotations

from harness.suites._base import Suite
from harness.threat import ThreatModel

__all__ = ["clean"]


def clean(threat: ThreatModel) -> Suite:
    """No steps."""
    return Suite("clean", ())
