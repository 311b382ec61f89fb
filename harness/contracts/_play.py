"""Running an attack as the engine does, with every choice that the engine is free to make left to the caller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from harness.attacks import Attack, Batch, Proposal, State
from harness.contracts._samples import Oracle
from harness.errors import ContractError

__all__ = ["Group", "Trace", "play"]


@dataclass(frozen=True)
class Group:
    """Samples that take their steps together: their positions, their batch and what the attack remembers of them."""

    owners: list[int]
    batch: Batch
    state: State

    def rows(self, places: list[int]) -> Group:
        """Some of them."""
        index = torch.tensor(places, dtype=torch.int64)
        state = {name: value[index] for name, value in self.state.items()}
        return Group([self.owners[place] for place in places], self.batch.rows(index), state)


@dataclass
class Trace:
    """What can be seen of a run: all points that the model was tried on, and which proposals were claimed, by sample.

    Attributes:
        asked: the points ``[...]`` of each sample, in order.
        claims: the iteration (-1 for the start) and point at which a sample was first claimed; it leaves then.
    """

    asked: dict[int, list[Tensor]]
    claims: dict[int, tuple[int, Tensor]] = field(default_factory=dict)

    def differs(self, other: Trace, *, outcome_only: bool = False) -> str:
        """What differs between two runs in a few words, empty where nothing does."""
        for owner in self.asked:
            mine, theirs = self.claims.get(owner), other.claims.get(owner)
            if (mine is None) != (theirs is None):
                return f"sample {owner} is claimed in one of them only"
            if mine is not None and theirs is not None and not _close(mine[1], theirs[1]):
                return f"sample {owner} is claimed at another point"
            if outcome_only:
                continue
            times, others = len(self.asked[owner]), len(other.asked[owner])
            if times != others:
                return f"the model is tried on sample {owner} {times} and {others} times"
            for number, (one, two) in enumerate(zip(self.asked[owner], other.asked[owner], strict=True)):
                if not _close(one, two):
                    return f"from pass {number + 1} on, the model is tried on other points of sample {owner}"
        return ""


def play(
    attack: Attack,
    batch: Batch,
    run: int,
    *,
    micro_batch: int = 1,
    owners: list[int] | None = None,
    between: Callable[[int, list[Group]], list[Group]] = lambda i, groups: groups,
    step: Callable[[int], Attack] | None = None,
) -> Trace:
    """One run of an attack; samples leave when they are claimed or over.

    Args:
        micro_batch: of the oracle.
        owners: what the samples of the batch are called in the trace; their positions if not given.
        between: regroups the samples before an iteration.
        step: the attack object that makes an iteration, ``attack`` itself if not given.

    Raises:
        ContractError: a state or proposal without a row for each sample.
    """
    owners = list(range(len(batch))) if owners is None else owners
    trace = Trace({owner: [] for owner in owners})
    at = replace(batch, draws=batch.draws.at(run))
    state, proposal = attack.start(at, Oracle(owners, trace.asked, micro_batch), run)
    groups = _left(Group(owners, at, state), proposal, trace, -1)
    for i in range(attack.steps):
        acting = attack if step is None else step(i)
        after: list[Group] = []
        for group in between(i, groups):
            state, proposal = acting.step(group.batch, group.state, Oracle(group.owners, trace.asked, micro_batch), i)
            after += _left(replace(group, state=state), proposal, trace, i)
        groups = after
    return trace


def _left(group: Group, proposal: Proposal, trace: Trace, i: int) -> list[Group]:
    _check_form(group, proposal)
    over = torch.zeros_like(proposal.claimed) if proposal.over is None else proposal.over
    for place, owner in enumerate(group.owners):
        if proposal.claimed[place]:
            trace.claims[owner] = i, proposal.points[place].clone()
    stay = (~(proposal.claimed | over)).nonzero().squeeze(1).tolist()
    if len(stay) == len(group.owners):
        return [group]
    return [group.rows(stay)] if stay else []


def _check_form(group: Group, proposal: Proposal) -> None:
    n = len(group.owners)
    masks = [proposal.claimed, *([] if proposal.over is None else [proposal.over])]
    if proposal.points.shape != group.batch.x.shape or any(m.shape != (n,) or m.dtype != torch.bool for m in masks):
        raise ContractError("the attack proposes points or claims of another shape than its batch")
    for name, value in group.state.items():
        if not isinstance(value, Tensor) or value.shape[:1] != (n,):
            raise ContractError(
                f"the attack keeps {name!r} in its state, and not as a tensor with a row for each sample"
            )


def _close(one: Tensor, two: Tensor) -> bool:
    return bool(torch.allclose(one, two, rtol=0, atol=1e-7))
