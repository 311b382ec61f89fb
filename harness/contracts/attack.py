"""What an attack keeps to.

The engine takes broken samples out between two iterations, joins and splits batches, runs restarts side by side, and
continues a killed run in another process. None of that may change what an attack does to a sample.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from harness.attacks import Attack, build
from harness.contracts._play import Group, Trace, play
from harness.contracts._samples import CLASSES, samples
from harness.errors import ContractError
from harness.threat import ThreatModel

__all__ = [
    "ATTACK_CONTRACTS",
    "AttackCase",
    "check_attack",
    "claims_in_the_ball",
    "keeps_nothing",
    "keeps_to_the_form",
    "leaves_global_randomness",
    "leaves_its_batch",
    "resumes",
    "survives_splits",
    "treats_samples_alone",
    "uses_free_rows_for_speed_only",
]


@dataclass(frozen=True)
class AttackCase:
    """An attack with the threat model and parameters that it is checked with; `make` builds it afresh.

    Attributes:
        name: a registered attack, or ``FILE.py:NAME``.
        parameters: small budgets keep the checks fast.
    """

    name: str
    threat: ThreatModel
    parameters: dict[str, Any]

    def make(self) -> Attack:
        """The attack."""
        return build(self.name, self.threat, CLASSES, **self.parameters)

    def traces(self, **choices: Any) -> list[Trace]:
        """The first and the last run of the attack on the samples of the check; see `play`."""
        attack = self.make()
        return [play(attack, samples(self.threat), run, **choices) for run in self.runs]

    @property
    def runs(self) -> list[int]:
        """The first and the last run."""
        return sorted({0, self.make().runs - 1})

    @cached_property
    def usual(self) -> list[Trace]:
        """The runs when nothing special happens."""
        return self.traces()

    def compare(self, others: list[Trace], what: str, *, outcome_only: bool = False) -> None:
        """Refuse an attack that does something else in ``others`` than when nothing special happens."""
        for one, other in zip(self.usual, others, strict=True):
            difference = one.differs(other, outcome_only=outcome_only)
            if difference:
                raise ContractError(f"the attack {self.name} {what}: {difference}")


def check_attack(name: str, threat: str | ThreatModel, **parameters: Any) -> None:
    """Check an attack against every contract.

    Args:
        name: a registered attack, or ``FILE.py:NAME``.
        threat: a radius at which some samples break and some do not, such as "Linf:0.05".
        **parameters: of the attack; small budgets suffice.

    Raises:
        ContractError: the first contract that it breaks, and how.
    """
    case = AttackCase(name, ThreatModel.parse(threat), parameters)
    for contract in ATTACK_CONTRACTS.values():
        contract(case)


def keeps_to_the_form(case: AttackCase) -> None:
    """States and proposals hold a row a sample, claims are truth values, and points have the shape of the images."""
    # every run is checked for that; this one is so in any case
    case.traces()


def claims_in_the_ball(case: AttackCase) -> None:
    """Claimed points lie in the threat model, up to rounding."""
    threat, x = case.threat, samples(case.threat).x
    for owner, (_, point) in [claim for trace in case.usual for claim in trace.claims.items()]:
        # what is not a number compares as false
        within = bool(((point >= 0) & (point <= 1)).all())
        if not within or float(threat.distance(point[None], x[owner][None])) > threat.radius + threat.tolerance:
            raise ContractError(f"the attack {case.name} claims a point outside {threat} or outside [0, 1]")


def leaves_global_randomness(case: AttackCase) -> None:
    """Neither does it draw from the global generators, nor does their state change what it does."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002  # it is what is checked
    try:
        torch.default_generator.manual_seed(1)
        random.setstate(random.Random(1).getstate())
        np.random.set_state(np.random.RandomState(1).get_state())  # noqa: NPY002
        before = _global_randomness()
        others = case.traces()
        if _global_randomness() != before:
            raise ContractError(f"the attack {case.name} draws from a global generator: take numbers from batch.draws")
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])
    case.compare(others, "depends on the state of a global generator")


def treats_samples_alone(case: AttackCase) -> None:
    """A sample alone is treated as it is beside others, some of which leave."""
    batch, attack, others = samples(case.threat), case.make(), []
    for run in case.runs:
        alone = Trace({})
        for owner in range(len(batch)):
            trace = play(attack, batch.rows(torch.tensor([owner])), run, owners=[owner])
            alone.asked |= trace.asked
            alone.claims |= trace.claims
        others.append(alone)
    case.compare(others, "treats a sample otherwise when it is alone")


def survives_splits(case: AttackCase) -> None:
    """Batches are split and joined between iterations, in another order."""

    def regroup(i: int, groups: list[Group]) -> list[Group]:
        whole = _joined(groups)
        if not whole or i % 3 == 2:
            return whole
        places = list(range(len(whole[0].owners)))[:: 1 if i % 2 else -1]
        return [whole[0].rows(part) for part in (places[::2], places[1::2]) if part]

    case.compare(case.traces(between=regroup), "does something else after its batch was split or joined")


def uses_free_rows_for_speed_only(case: AttackCase) -> None:
    """Room in a batch may change which points are tried in vain, and nothing else."""
    case.compare(case.traces(micro_batch=24), "finds something else where a batch may be filled up", outcome_only=True)


def resumes(case: AttackCase) -> None:
    """A run continues from its saved state, with a new attack object."""
    middle = case.make().steps // 2

    def saved(i: int, groups: list[Group]) -> list[Group]:
        return groups if i != middle else [replace(group, state=_restored(group.state)) for group in groups]

    def step(i: int) -> Attack:
        return case.make()

    case.compare(case.traces(between=saved, step=step), "does something else after it was resumed")


def keeps_nothing(case: AttackCase) -> None:
    """An attack object is the same after a run as before it, and can be sent to another process."""
    attack, batch = case.make(), samples(case.threat)
    # what is computed once and kept, such as the geometry of the threat model, is there after the first run
    play(attack, batch, 0)
    before = _pickled(attack, case)
    others = [play(attack, batch, run) for run in case.runs]
    if _pickled(attack, case) != before:
        raise ContractError(f"the attack {case.name} keeps something in itself: put it into the state")
    case.compare(others, "does something else in its second run")


def leaves_its_batch(case: AttackCase) -> None:
    """Images, classes and logits of the batch are not changed."""
    attack, batch, untouched = case.make(), samples(case.threat), samples(case.threat)
    for run in case.runs:
        play(attack, batch, run)
        if not all(torch.equal(getattr(batch, name), getattr(untouched, name)) for name in ("x", "y", "logits")):
            raise ContractError(f"the attack {case.name} changes its batch in place: work on a copy")


ATTACK_CONTRACTS: dict[str, Callable[[AttackCase], None]] = {
    contract.__name__: contract
    for contract in (
        keeps_to_the_form,
        claims_in_the_ball,
        leaves_its_batch,
        leaves_global_randomness,
        treats_samples_alone,
        survives_splits,
        uses_free_rows_for_speed_only,
        resumes,
        keeps_nothing,
    )
}
"""Every contract by name, the simplest first."""


def _joined(groups: list[Group]) -> list[Group]:
    if len(groups) < 2:
        return groups
    first, batches = groups[0], [group.batch for group in groups]
    batch = replace(
        batches[0],
        x=torch.cat([batch.x for batch in batches]),
        y=torch.cat([batch.y for batch in batches]),
        logits=torch.cat([batch.logits for batch in batches]),
        draws=first.batch.draws.join([batch.draws for batch in batches]),
    )
    state = {name: torch.cat([group.state[name] for group in groups]) for name in first.state}
    return [Group([owner for group in groups for owner in group.owners], batch, state)]


def _restored(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    restored: dict[str, torch.Tensor] = torch.load(file, weights_only=True)
    return restored


def _pickled(attack: Attack, case: AttackCase) -> bytes:
    file = io.BytesIO()
    try:
        torch.save(attack, file)
    except Exception as error:  # what cannot be saved says so in errors of its own
        raise ContractError(f"the attack {case.name} cannot be sent to another process: {error}") from error
    return file.getvalue()


def _global_randomness() -> tuple[bytes, str, str]:
    state: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    words = state["state"]
    return torch.get_rng_state().numpy().tobytes(), f"{words['key'].tolist()} {words['pos']}", str(random.getstate())
