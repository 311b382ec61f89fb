"""Suites: which attacks run in which order, as data.

A suite is a function of the threat model only where the reference is: AutoAttack's parameters differ in
L1. ``autoattack`` follows the reference implementation where it departs from the papers
(`docs/equivalence.md`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import attacks
from harness.errors import HarnessError, InvalidInput, UnknownName
from harness.threat import ThreatModel

__all__ = ["REFERENCE", "Step", "Suite", "describe", "get", "names"]

REFERENCE = "pyautoattack"
"""The attack name of the one step that runs the reference implementation instead of an attack of ours."""

# parameters are checked before any model is known; few classes only ever lead to a note
_MANY_CLASSES = 1000


@dataclass(frozen=True)
class Step:
    """One attack of a suite: its name in results, the registered attack, and its parameters."""

    name: str
    attack: str
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """Steps in order, each run on the samples still standing, from their clean images.

    Attributes:
        expects_random: the suite is meant for randomised models, which are then not flagged.
    """

    name: str
    steps: tuple[Step, ...]
    expects_random: bool = False


def _apgd(loss: str, **parameters: Any) -> Step:
    name = {"ce": "apgd-ce", "dlr": "apgd-dlr", "dlr-targeted": "apgd-t"}[loss]
    return Step(name, "apgd", {"loss": loss, "steps": 100, **parameters})


_SQUARE = Step("square", "square", {"queries": 5000})
_FAB_T = Step("fab-t", "fab", {"targeted": True, "targets": 9, "steps": 100})


def _clean(threat: ThreatModel) -> tuple[Step, ...]:
    """No attack: clean accuracy only."""
    return ()


def _fgsm(threat: ThreatModel) -> tuple[Step, ...]:
    """One gradient step of the full radius."""
    return (Step("fgsm", "fgsm"),)


def _pgd(threat: ThreatModel) -> tuple[Step, ...]:
    """PGD, 100 steps, 5 random restarts; fooled samples leave at once."""
    return (Step("pgd", "pgd", {"steps": 100, "restarts": 5}),)


def _pgd_20(threat: ThreatModel) -> tuple[Step, ...]:
    """PGD, 20 steps, one random start: the usual figure of papers."""
    return (Step("pgd-20", "pgd", {"steps": 20, "restarts": 1}),)


def _autoattack(threat: ThreatModel) -> tuple[Step, ...]:
    """AutoAttack's standard version on this engine."""
    if threat.norm == "L1":
        ce = _apgd("ce", restarts=5, larger_radii=True)
        targeted = _apgd("dlr-targeted", targets=5, larger_radii=True)
    else:
        ce, targeted = _apgd("ce"), _apgd("dlr-targeted", targets=9)
    return (ce, targeted, _FAB_T, _SQUARE)


def _autoattack_plus(threat: ThreatModel) -> tuple[Step, ...]:
    """AutoAttack's plus version on this engine."""
    return (
        _apgd("ce", restarts=5),
        _apgd("dlr", restarts=5),
        Step("fab", "fab", {"steps": 100, "restarts": 5}),
        _SQUARE,
        _apgd("dlr-targeted", targets=9),
        _FAB_T,
    )


def _autoattack_rand(threat: ThreatModel) -> tuple[Step, ...]:
    """AutoAttack's version for randomised models, with 20 passes a gradient, on this engine."""
    return (_apgd("ce", eot=20), _apgd("dlr", eot=20))


def _square(threat: ThreatModel) -> tuple[Step, ...]:
    """Square Attack alone, for models without gradients."""
    return (_SQUARE,)


def _autoattack_reference(threat: ThreatModel) -> tuple[Step, ...]:
    """AutoAttack's standard version by pyautoattack exactly as it comes, the cross-check."""
    return (Step("autoattack-reference", REFERENCE, {"version": "standard"}),)


_SUITES: dict[str, Callable[[ThreatModel], tuple[Step, ...]]] = {
    "autoattack": _autoattack,
    "autoattack-plus": _autoattack_plus,
    "autoattack-rand": _autoattack_rand,
    "autoattack-reference": _autoattack_reference,
    "clean": _clean,
    "fgsm": _fgsm,
    "pgd": _pgd,
    "pgd-20": _pgd_20,
    "square": _square,
}


def names() -> tuple[str, ...]:
    """The registered suites."""
    return tuple(sorted(_SUITES))


def describe(name: str) -> str:
    """One line about a registered suite."""
    return (_SUITES[name].__doc__ or "").strip()


def get(name: str, threat: ThreatModel) -> Suite:
    """The suite ``name``: a registered one, or a TOML file that lists its steps.

    A file holds ``[[step]]`` tables with ``attack``, an optional ``name``, and the attack's parameters::

        [[step]]
        attack = "apgd"
        loss = "dlr"
        restarts = 3

    Raises:
        UnknownName: neither a registered suite nor a file.
        InvalidInput: a file that does not describe a suite, or a parameter that its attack does not take.
    """
    if name in _SUITES:
        return Suite(name, _SUITES[name](threat), expects_random=name == "autoattack-rand")
    if name.endswith(".toml"):
        return _from_file(Path(name), threat)
    raise UnknownName("suite", name, [*_SUITES, "FILE.toml"])


def _from_file(path: Path, threat: ThreatModel) -> Suite:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"cannot read the suite {path}: {error}") from error
    tables = content.get("step")
    if set(content) != {"step"} or not isinstance(tables, list) or not tables:
        raise InvalidInput(f"the suite {path} must consist of [[step]] tables, got {sorted(content) or 'nothing'}")
    if path.stem in _SUITES:
        # its results would be ranked as those of the registered suite
        raise InvalidInput(f"the suite {path} must not be called like the registered suite {path.stem}: rename it")
    steps: list[Step] = []
    for position, table in enumerate(tables):
        parameters = dict(table)
        attack = parameters.pop("attack", None)
        if not isinstance(attack, str):
            raise InvalidInput(f"step {position + 1} of the suite {path} needs attack = NAME")
        if attack not in attacks.names():
            raise UnknownName("attack", attack, attacks.names())
        label = str(parameters.pop("name", attack))
        if any(step.name == label for step in steps):
            raise InvalidInput(f"two steps of the suite {path} are called {label!r}: give each a name of its own")
        try:
            attacks.build(attack, threat, _MANY_CLASSES, **parameters)
        except HarnessError as error:
            raise InvalidInput(f"step {position + 1} of the suite {path}: {error}") from error
        steps.append(Step(label, attack, parameters))
    return Suite(path.stem, tuple(steps))
