"""Square Attack: a random search that needs no gradient.

Andriushchenko, Croce, Flammarion & Hein 2020, "Square Attack: a query-efficient black-box adversarial
attack via random search" (arXiv 1912.00049). The l1 version is from Croce & Hein 2021, "Mind the Box"
(arXiv 2103.01208).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.attacks._arguments import at_least_one
from harness.attacks._base import Attack, Batch, Oracle, Proposal, State
from harness.attacks._square import MOVES
from harness.errors import InvalidInput, UnknownName
from harness.losses import cross_entropy, margin
from harness.threat import ThreatModel

__all__ = ["share_of_image", "square"]

_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"margin": margin, "ce": cross_entropy}
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
# a generator is set up per sample and draw, so the numbers of many queries are drawn at once
_BLOCK = 128
# what a state holds beside the block's draws
_SEARCH = {"best", "loss", "fooled"}


def square(
    threat: ThreatModel,
    classes: int,
    *,
    queries: int = 5000,
    restarts: int = 1,
    p_init: float = 0.8,
    loss: str = "margin",
) -> Attack:
    """Square Attack in Linf, L2 or L1: at most one forward pass per query, and one for the first point.

    Args:
        threat: norm and radius.
        classes: of the model, at least 2; the attack is the same for any number.
        queries: candidates tried in each restart.
        restarts: independent searches.
        p_init: share of the image that the first windows cover, in (0, 1]; it is halved after 10, 50,
            200, 500, 1000, 2000, 4000, 6000 and 8000 queries, whatever ``queries`` is.
        loss: what a candidate must raise to be kept: "margin" or "ce" (cross-entropy).

    Raises:
        InvalidInput: a parameter outside its range; from the attack, inputs that are not ``[n, C, H, W]``.
        UnknownName: another loss.
    """
    at_least_one("square", queries=queries, restarts=restarts)
    if not 0 < p_init <= 1:
        raise InvalidInput(f"square needs p_init above 0 and at most 1, got {p_init}")
    if loss not in _LOSSES:
        raise UnknownName("loss", loss, _LOSSES)
    return _Square(threat=threat, runs=restarts, steps=queries, p_init=p_init, loss=loss)


def share_of_image(query: int, p_init: float) -> float:
    """Share of the image that the windows of query number ``query`` (from 0) cover."""
    return math.ldexp(p_init, -bisect_left(_HALVED_AFTER, query))


@dataclass(frozen=True)
class _Square(Attack):
    """State: ``best`` points (flat), their ``loss``, whether they ``fooled`` the model, and the draws of
    the current block of queries, ``[n, block, ...]`` each."""

    threat: ThreatModel
    runs: int
    steps: int
    p_init: float
    loss: str

    def start(self, batch: Batch, oracle: Oracle, run: int) -> tuple[State, Proposal]:
        if batch.x.dim() != 4:
            raise InvalidInput(f"square attacks images [n, C, H, W], got inputs of shape {list(batch.x.shape)}")
        points = MOVES[self.threat.norm].first(batch.x, self.threat.radius, batch.draws, 0)
        loss, proposal = self._try(batch, points, oracle)
        return {"best": points, "loss": loss, "fooled": proposal.claimed}, proposal

    def step(self, batch: Batch, state: State, oracle: Oracle, i: int) -> tuple[State, Proposal]:
        moves, x = MOVES[self.threat.norm], batch.x
        if i % _BLOCK == 0:
            sides = torch.tensor([self._side(x, query) for query in range(i, i + _BLOCK)])
            state |= moves.draw(x, batch.draws, 1 + i // _BLOCK, sides)
        drawn = {name: state[name][:, i % _BLOCK] for name in state.keys() - _SEARCH}
        points = moves.candidate(x, self.threat.radius, state["best"], drawn, self._side(x, i))
        loss, proposal = self._query(batch, state, points, oracle)
        improved = loss > state["loss"]
        kept = improved | (proposal.claimed & ~state["fooled"])
        state["best"] = torch.where(kept[:, None], points, state["best"])
        state["loss"] = torch.where(improved, loss, state["loss"])
        state["fooled"] = state["fooled"] | proposal.claimed
        return state, proposal

    def _query(self, batch: Batch, state: State, points: Tensor, oracle: Oracle) -> tuple[Tensor, Proposal]:
        """Loss and claims at ``points``; a candidate that is the best point itself is known and costs nothing."""
        changed = (points != state["best"]).any(dim=1)
        if bool(changed.all()):
            return self._try(batch, points, oracle)
        rows = changed.nonzero().squeeze(1)
        loss, claimed = state["loss"].clone(), torch.zeros_like(state["fooled"])
        images = points.view(batch.x.shape)
        if len(rows):
            logits = oracle.logits(images[rows], rows)
            loss[rows] = _LOSSES[self.loss](logits, batch.y[rows])
            claimed[rows] = logits.argmax(dim=1) != batch.y[rows]
        return loss, Proposal(images, claimed)

    def _try(self, batch: Batch, points: Tensor, oracle: Oracle) -> tuple[Tensor, Proposal]:
        images = points.view(batch.x.shape)
        logits = oracle.logits(images)
        claimed = logits.argmax(dim=1) != batch.y
        return _LOSSES[self.loss](logits, batch.y), Proposal(images, claimed)

    def _side(self, x: Tensor, query: int) -> int:
        height, width = x.shape[2:]
        return MOVES[self.threat.norm].side(share_of_image(query, self.p_init), height, width)
