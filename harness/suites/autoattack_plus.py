"""AutoAttack's plus version on this engine."""

from __future__ import annotations

from harness.suites._autoattack_steps import FAB_T, SQUARE, apgd
from harness.suites._base import Step, Suite
from harness.threat import ThreatModel

__all__ = ["autoattack_plus"]


def autoattack_plus(threat: ThreatModel) -> Suite:
    """The attacks of the standard version with restarts, and untargeted APGD-DLR and FAB besides."""
    return Suite(
        "autoattack-plus",
        (
            apgd("ce", restarts=5),
            apgd("dlr", restarts=5),
            Step("fab", "fab", {"steps": 100, "restarts": 5}),
            SQUARE,
            apgd("dlr-targeted", targets=9),
            FAB_T,
        ),
    )
