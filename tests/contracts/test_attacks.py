"""Every registered attack keeps its contracts in every registered norm."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from harness import attacks
from harness.contracts import ATTACK_CONTRACTS, AttackCase
from harness.threat import ThreatModel, norms
from harness.util import plugins

# the distance of the samples follows from the radius, which is one that noise in [0, 1] has in each norm
RADII = {"Linf": "0.03", "L2": "0.25", "L1": "1"}
SMALL = {"steps": 12, "queries": 140, "restarts": 2}
# what turns on parts of an attack that its defaults leave out
VARIANTS: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("apgd", "Linf"): [{"loss": "dlr-targeted"}, {"eot": 2}],
    ("apgd", "L1"): [{"larger_radii": True, "steps": 20}],
    ("fab", "L2"): [{"targeted": True}],
    ("fgsm", "Linf"): [{"random_start": True}],
    ("pgd", "Linf"): [{"random_start": False, "restarts": 1}],
}


def small(name: str) -> dict[str, Any]:
    """Small budgets, as far as the attack has parameters of these names."""
    known = inspect.signature(plugins.lookup("harness.attacks", name, "attack")).parameters
    return {parameter: value for parameter, value in SMALL.items() if parameter in known}


CASES = [
    pytest.param(
        AttackCase(name, ThreatModel(norm, RADII.get(norm, "0.1")), small(name) | variant),
        id="-".join([name, norm, *(f"{k}={v}" for k, v in variant.items())]),
    )
    for name in attacks.names()
    for norm in norms.names()
    for variant in [{}, *VARIANTS.get((name, norm), [])]
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("contract", ATTACK_CONTRACTS)
def test_contract(contract: str, case: AttackCase) -> None:
    ATTACK_CONTRACTS[contract](case)


@pytest.mark.parametrize("case", CASES)
def test_the_samples_tell_something(case: AttackCase) -> None:
    """An attack that breaks nothing, or all at once, could not break a contract."""
    claims = [len(trace.claims) for trace in case.usual]
    asked = [len(points) for trace in case.usual for points in trace.asked.values()]
    assert max(claims) > 0
    assert min(claims) < 6
    assert max(asked) > 1
