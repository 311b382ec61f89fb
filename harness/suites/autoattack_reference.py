"""AutoAttack's standard version by pyautoattack exactly as it comes, the cross-check."""

from __future__ import annotations

from harness.suites._base import REFERENCE, Step, Suite
from harness.threat import ThreatModel

__all__ = ["autoattack_reference"]


def autoattack_reference(threat: ThreatModel) -> Suite:
    """One step, which the reference implementation runs."""
    return Suite("autoattack-reference", (Step("autoattack-reference", REFERENCE, {"version": "standard"}),))
