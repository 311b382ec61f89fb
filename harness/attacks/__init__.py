"""Attacks: one file each, a function that builds an `Attack` for a threat model.

An attack proposes and never decides: the engine drives it, and the judge re-checks what it proposes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.attacks._arguments import at_least_one, check_parameters
from harness.attacks._base import Attack, Batch, Loss, Oracle, Proposal, State
from harness.attacks._objectives import Objective, targeted, untargeted
from harness.errors import InvalidInput
from harness.threat import ThreatModel
from harness.util import plugins

__all__ = [
    "Attack",
    "Batch",
    "Loss",
    "Objective",
    "Oracle",
    "Proposal",
    "State",
    "at_least_one",
    "build",
    "names",
    "targeted",
    "untargeted",
]


def names() -> tuple[str, ...]:
    """The registered attacks."""
    return plugins.members(__name__)


def build(name: str, threat: ThreatModel, classes: int, /, **parameters: Any) -> Attack:
    """The attack ``name`` for a threat model and a number of classes.

    Args:
        name: a registered attack, or ``FILE.py:NAME``.

    Raises:
        UnknownName: no attack of that name, or no parameter of that name.
        InvalidInput: a parameter of another type or outside its range, or a file that does not define an attack.
    """
    builder = plugins.lookup(__name__, name, "attack", Callable)
    check_parameters(name, builder, parameters)
    attack = builder(threat, classes, **parameters)
    if not isinstance(attack, Attack):
        raise InvalidInput(f"the attack {name} must return an Attack, got a {type(attack).__name__}")
    return attack
