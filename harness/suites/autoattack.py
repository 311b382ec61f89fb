"""AutoAttack's standard version on this engine.

Croce & Hein 2020 (arXiv 2003.01690); where the reference implementation departs from the paper, this follows the
implementation (`docs/equivalence.md`).
"""

from __future__ import annotations

from dataclasses import replace

from harness.suites._autoattack_steps import FAB_T, SQUARE, apgd
from harness.suites._base import Suite
from harness.threat import ThreatModel

__all__ = ["autoattack"]


def autoattack(threat: ThreatModel) -> Suite:
    """APGD on the cross-entropy and the targeted DLR loss, targeted FAB, and Square.

    In sparse norms (L1) the reference begins APGD with larger radii, from five starts, and aims at fewer classes.
    """
    if threat.sparse:
        ce = apgd("ce", restarts=5, larger_radii=True)
        targeted = apgd("dlr-targeted", targets=5, larger_radii=True)
    else:
        ce, targeted = apgd("ce"), apgd("dlr-targeted", targets=9)
    likeliest = replace(targeted, parameters={**targeted.parameters, "targets": 1})
    return Suite("autoattack", (ce, targeted, FAB_T, SQUARE), opening=(ce, likeliest))
