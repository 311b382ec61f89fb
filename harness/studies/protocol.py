"""How far a study's training is from that of the works behind its regimes, field by field."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import InvalidInput
from harness.regimes import Fact
from harness.studies.planning import Member, Plan
from harness.threat import ThreatModel
from harness.training.plan import crafting_of

__all__ = ["Compared", "compare"]

State = Literal["faithful", "ours", "unknown", "not set here"]


@dataclass(frozen=True)
class Compared:
    """One fact of a source beside ours.

    Attributes:
        state: "faithful" where both are equal, "ours" where they differ, "unknown" where the source does not say, and
            "not set here" where this package has no such field, so that torch's or the architecture's own is used.
    """

    field: str
    theirs: str
    source: str
    ours: str
    state: State


def compare(plan: Plan, member: Member) -> tuple[Compared, ...]:
    """The facts of a member's regime beside what the study does; () where the regime names none."""
    if member.regime is None:
        return ()
    ours = dict(_ours(plan, member))
    return tuple(_compared(fact, ours) for fact in member.regime.protocol)


def _compared(fact: Fact, ours: dict[str, Any]) -> Compared:
    known, value = fact.field in ours, ours.get(fact.field)
    if fact.value is None:
        state: State = "unknown"
    elif not known:
        state = "not set here"
    else:
        state = "faithful" if _equal(fact.value, value) else "ours"
    theirs = "not known" if fact.value is None else _text(fact.value)
    return Compared(fact.field, theirs, fact.source, _text(value) if known else "-", state)


def _ours(plan: Plan, member: Member) -> Iterator[tuple[str, Any]]:
    """Everything that a source's fact may be compared with. Of phases in sequence, the last decides."""
    regime, settings = member.regime, member.settings
    if regime is None or settings is None:
        return
    last = regime.stages()[-1]
    yield from settings.model_dump(exclude={"seed", "threat", "attack", "steps", "step_size"}).items()
    yield from last.model_dump(include={"loss", "adversarial_weight", "trades_beta", "bn_statistics"}).items()
    yield from last.model_dump(include={"learning_rate", "weight_decay"}, exclude_none=True).items()
    init = regime.init
    yield "gamma_init", "architecture's own" if init is None or init.bn_gamma is None else init.bn_gamma
    yield "conv_init", "architecture's own" if init is None else init.conv or "architecture's own"
    yield "head_init", "architecture's own" if init is None else init.head or "architecture's own"
    yield "norm_layer", regime.norm_layer or "own"
    yield "dataset", None if plan.train_set is None else plan.train_set.name
    yield "architecture", _architecture(plan, member)
    if regime.crafts:
        crafting = crafting_of(last, settings, plan.test_set)
        yield "threat", str(crafting.threat)
        yield "crafting_start", crafting.start
        yield "attack", crafting.kind
        yield "steps", crafting.steps
        yield "step_size", crafting.step_size
        yield "crafting_mode", last.crafting_mode
    awp = last.awp
    if awp is not None:
        yield "awp_gamma", awp.gamma
        yield "awp_part", " + ".join(awp.part)


def _architecture(plan: Plan, member: Member) -> str | None:
    """A member's own, or that of the network it is trained from."""
    if member.source is not None:
        return member.source.manifest.architecture
    return member.architecture if member.parent is None else _architecture(plan, plan.member(member.parent))


def _equal(theirs: Any, ours: Any) -> bool:
    if ours is None:
        return False
    numbers = _number(theirs), _number(ours)
    if numbers[0] is not None and numbers[1] is not None:
        return math.isclose(numbers[0], numbers[1], rel_tol=1e-6)
    try:
        one, other = ThreatModel.parse(str(theirs)), ThreatModel.parse(str(ours))
        return (one.norm, one.radius) == (other.norm, other.radius)
    except InvalidInput:
        return str(theirs) == str(ours)


def _number(value: Any) -> float | None:
    """A number, or a fraction in text such as 2/255."""
    above, _, below = str(value).partition("/")
    try:
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        return None


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
