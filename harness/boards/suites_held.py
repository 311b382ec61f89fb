"""Whether what a result says of its attacks is the suite that it names.

A result names its suite, and boards rank by that name. The name alone proves nothing: the steps do, because they decide
the hash of the evaluation.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from harness import suites
from harness.results.identity import step_identity, steps_made
from harness.results.record import Result
from harness.threat import ThreatModel, norms
from harness.util.source_text import source_sha256

__all__ = ["deviation"]


def deviation(result: Result) -> str | None:
    """In what the steps of a result differ from those of the registered suite that it names, as a sentence's end.

    None where they are equal, and where there is nothing to compare with: a suite that is not registered here, or a
    norm from a user's file, which is not run for this.
    """
    wanted = _registered(result.suite, result.threat.norm, result.threat.eps)
    if wanted is None:
        return None
    made = steps_made(result)
    if len(made) != len(wanted):
        return f"{len(made)} steps ran, the suite has {len(wanted)}"
    for position, (ran, expected) in enumerate(zip(made, wanted, strict=True), start=1):
        if not _same(ran, expected):
            return f"step {position} was {_said(ran)}, the suite's is {_said(expected)}"
    return None


@cache
def _registered(name: str, norm: str, eps: str) -> tuple[dict[str, Any], ...] | None:
    if norm not in norms.names():
        return None
    suite = suites.registered(name, ThreatModel(norm, eps))
    if suite is None:
        return None
    return tuple(
        step_identity(step.name, step.attack, step.parameters, source_sha256(step.attack)) for step in suite.steps
    )


def _same(ran: dict[str, Any], expected: dict[str, Any]) -> bool:
    if expected["attack"] == suites.REFERENCE:  # whose step is also recorded with the settings of the run
        known = {key: ran["parameters"].get(key) for key in expected["parameters"]}
        return {**ran, "parameters": known} == expected
    return ran == expected


def _said(part: dict[str, Any]) -> str:
    given = (f"{key}={value}" for key, value in part["parameters"].items())
    return f"{part['name']} ({' '.join([part['attack'], *given])})"
