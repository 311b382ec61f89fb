"""Suites: one file each, a function from a threat model to a `Suite`, which says which attacks run in which order.

A suite depends on the threat model only where the reference does: AutoAttack's parameters differ in sparse norms.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.errors import HarnessError, InvalidInput
from harness.suites._base import REFERENCE, Step, Suite
from harness.suites._file import read
from harness.threat import ThreatModel
from harness.util import plugins

__all__ = ["REFERENCE", "Step", "Suite", "get", "names", "registered"]

# parameters are checked before any model is known; few classes only ever lead to a note
_MANY_CLASSES = 1000


def names() -> tuple[str, ...]:
    """The registered suites."""
    return plugins.members(__name__)


def get(name: str, threat: ThreatModel) -> Suite:
    """The suite ``name``: a registered one, ``FILE.py:NAME``, or a TOML file that lists its steps.

    A TOML file holds ``[[step]]`` tables with ``attack``, an optional ``name``, and the attack's parameters::

        [[step]]
        attack = "apgd"
        loss = "dlr"
        restarts = 3

    Every step is built once, so that what an attack refuses is known before any of them has run.

    Raises:
        UnknownName: neither a registered suite nor a file.
        InvalidInput: a file that does not describe a suite, or a step that its attack or the norm does not allow.
    """
    suite = read(Path(name)) if name.endswith(".toml") else _made(name, threat)
    if suite.name != name and plugins.is_member(__name__, suite.name):
        # its results would be ranked as those of the registered suite
        raise InvalidInput(f"the suite {name} must not be called like the registered suite {suite.name}: rename it")
    for position, step in enumerate(suite.steps):
        if step.attack != REFERENCE:
            _check(step, threat, f"step {position + 1} of the suite {name}")
    return suite


def registered(name: str, threat: ThreatModel) -> Suite | None:
    """The registered suite ``name``, its steps unchecked; None if there is none.

    Raises:
        InvalidInput: what is registered under that name makes no suite.
    """
    return _made(name, threat) if plugins.is_member(__name__, name) else None


def _made(name: str, threat: ThreatModel) -> Suite:
    suite = plugins.lookup(__name__, name, "suite", Callable)(threat)
    if not isinstance(suite, Suite):
        raise InvalidInput(f"the suite {name} must return a Suite, got a {type(suite).__name__}")
    return suite


def _check(step: Step, threat: ThreatModel, what: str) -> None:
    from harness import attacks  # a board asks for the steps of a suite, and builds none

    try:
        attacks.build(step.attack, threat, _MANY_CLASSES, **step.parameters)
    except HarnessError as error:
        raise InvalidInput(f"{what}: {error}") from error
