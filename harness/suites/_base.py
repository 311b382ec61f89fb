"""What a suite is: steps in order, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["REFERENCE", "Step", "Suite"]

REFERENCE = "pyautoattack"
"""The attack name of the one step that runs the reference implementation instead of an attack of this package."""


@dataclass(frozen=True)
class Step:
    """One attack of a suite.

    Attributes:
        name: what results call it.
        attack: a registered name, or ``FILE.py:NAME``.
        parameters: of the attack, by name.
    """

    name: str
    attack: str
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """Steps in order, each run on the samples that survive the steps before it, from their clean images.

    Attributes:
        name: what results call it.
        expects_random: the suite is meant for randomised models, which are then not flagged.
        opening: the first runs of the suite, as steps: they break most of what it breaks at a small part of its
            passes, and an estimate makes them on all samples. Each is a step of the suite, or some first runs of it.
    """

    name: str
    steps: tuple[Step, ...]
    expects_random: bool = False
    opening: tuple[Step, ...] = ()
