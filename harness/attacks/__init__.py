"""Attacks: one file each, a function that builds an `Attack` for a threat model.

An attack proposes and never decides: the engine drives it, and the judge re-checks what it proposes.
"""

from __future__ import annotations

from typing import Any

from harness.attacks._arguments import check_parameters
from harness.attacks._base import Attack, Batch, Oracle, Proposal, State
from harness.threat import ThreatModel
from harness.util import plugins

__all__ = ["Attack", "Batch", "Oracle", "Proposal", "State", "build", "names"]


def names() -> tuple[str, ...]:
    """The registered attacks."""
    return plugins.members(__name__)


def build(name: str, threat: ThreatModel, classes: int, /, **parameters: Any) -> Attack:
    """The attack ``name`` for a threat model and a number of classes.

    Raises:
        UnknownName: no attack of that name, or no parameter of that name.
        InvalidInput: a parameter of another type or outside its range.
    """
    builder = plugins.lookup(__name__, name, "attack")
    check_parameters(name, builder, parameters)
    attack: Attack = builder(threat, classes, **parameters)
    return attack
