"""The steps that the versions of AutoAttack share."""

from __future__ import annotations

from typing import Any

from harness.suites._base import Step

__all__ = ["FAB_T", "SQUARE", "apgd"]

FAB_T = Step("fab-t", "fab", {"targeted": True, "targets": 9, "steps": 100})
SQUARE = Step("square", "square", {"queries": 5000})

_NAMES = {"ce": "apgd-ce", "dlr": "apgd-dlr", "dlr-targeted": "apgd-t"}


def apgd(loss: str, **parameters: Any) -> Step:
    """APGD with 100 steps, called as AutoAttack calls it."""
    return Step(_NAMES[loss], "apgd", {"loss": loss, "steps": 100, **parameters})
