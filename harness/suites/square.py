"""Square Attack alone, for models without gradients."""

from __future__ import annotations

from harness.suites._autoattack_steps import SQUARE
from harness.suites._base import Suite
from harness.threat import ThreatModel

__all__ = ["square"]


def square(threat: ThreatModel) -> Suite:
    """5,000 queries."""
    return Suite("square", (SQUARE,))
