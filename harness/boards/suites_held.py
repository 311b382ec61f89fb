"""Whether what a result says of its attacks is the suite that it names.

A result names its suite, and boards rank by that name. The name alone proves nothing: the steps do, because they decide
the hash of the evaluation.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from harness import suites
from harness.results.record import Result, StepRecord
from harness.threat import ThreatModel, norms

__all__ = ["deviation"]

_Part = tuple[str, str, dict[str, Any]]


def deviation(result: Result) -> str | None:
    """In what the steps of a result differ from those of the registered suite that it names, as a sentence's end.

    None where they are equal, and where there is nothing to compare with: a suite that is not registered here, or a
    norm from a user's file, which is not run for this.
    """
    wanted = _registered(result.suite, result.threat.norm, result.threat.eps)
    if wanted is None:
        return None
    made = _parts(result.steps)
    if len(made) != len(wanted):
        return f"{len(made)} steps ran, the suite has {len(wanted)}"
    for position, (ran, expected) in enumerate(zip(made, wanted, strict=True), start=1):
        if not _same(ran, expected):
            return f"step {position} was {_said(ran)}, the suite's is {_said(expected)}"
    return None


@cache
def _registered(name: str, norm: str, eps: str) -> tuple[_Part, ...] | None:
    if norm not in norms.names():
        return None
    suite = suites.registered(name, ThreatModel(norm, eps))
    return None if suite is None else tuple((step.name, step.attack, dict(step.parameters)) for step in suite.steps)


def _parts(steps: list[StepRecord]) -> list[_Part]:
    """The suite's steps; the rows of one that reports several follow each other."""
    parts: dict[str, _Part] = {}
    for step in steps:
        name = step.part_of or step.name
        parts[name] = (name, step.attack, step.parameters)
    return list(parts.values())


def _same(ran: _Part, expected: _Part) -> bool:
    name, attack, parameters = expected
    # the reference's step is also recorded with the settings of the run
    recorded = {key: ran[2].get(key) for key in parameters} if attack == suites.REFERENCE else ran[2]
    return (ran[0], ran[1], recorded) == (name, attack, parameters)


def _said(part: _Part) -> str:
    name, attack, parameters = part
    return " ".join([name, f"({attack}", *(f"{key}={value}" for key, value in parameters.items())]) + ")"
