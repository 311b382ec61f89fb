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
# one candidate in 20 or 40 is kept, so that more than this many at once would mostly be tried in vain
_MOST_AHEAD = 8
# what a state holds beside the block's draws
_SEARCH = {"best", "loss", "fooled", "query"}


def square(
    threat: ThreatModel,
    classes: int,
    *,
    queries: int = 5000,
    restarts: int = 1,
    p_init: float = 0.8,
    loss: str = "margin",
) -> Attack:
    """Square Attack in Linf, L2 or L1: one forward pass per query at most, and one for the first point.

    A candidate starts from the best point so far, and is rarely better. So where few samples are left and a batch
    has room, a sample's next candidates are made and tried together, as if all were going to be rejected. The
    first that is not ends the round, and those after it were tried in vain: the search is the same, query by
    query, at a few percent more passes and far fewer batches.

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
    """State: ``best`` points (flat), their ``loss``, whether they ``fooled`` the model, how many queries each sample
    has behind it, and the draws of the block of queries that it is in, ``[n, block, ...]`` each."""

    threat: ThreatModel
    runs: int
    steps: int
    p_init: float
    loss: str

    def start(self, batch: Batch, oracle: Oracle, run: int) -> tuple[State, Proposal]:
        if batch.x.dim() != 4:
            raise InvalidInput(f"square attacks images [n, C, H, W], got inputs of shape {list(batch.x.shape)}")
        points = MOVES[self.threat.norm].first(batch.x, self.threat.radius, batch.draws, 0)
        images = points.view(batch.x.shape)
        logits = oracle.logits(images)
        claimed = logits.argmax(dim=1) != batch.y
        query = torch.zeros_like(batch.y)
        state = {"best": points, "loss": self._loss(logits, batch.y), "fooled": claimed, "query": query}
        return state, Proposal(images, claimed)

    def step(self, batch: Batch, state: State, oracle: Oracle, i: int) -> tuple[State, Proposal]:
        tried = self._next(batch, state, max(1, min(oracle.room // len(batch), _MOST_AHEAD)))
        loss, claimed = self._query(batch, state, tried, oracle)
        improved = loss > state["loss"][tried.rows]
        # per sample, the first candidate that is no rejection, or else the last
        ends = torch.where(improved | claimed, tried.ahead, tried.count[tried.rows])
        first = tried.count.scatter_reduce(0, tried.rows, ends, "amin")
        state["query"] = state["query"] + torch.minimum(first + 1, tried.count)
        samples = tried.count.nonzero().squeeze(1)
        which = (tried.begin + torch.minimum(first, tried.count - 1))[samples]
        fooled = claimed[which]
        kept = improved[which] | (fooled & ~state["fooled"][samples])
        points = state["best"].clone()
        points[samples] = tried.points[which]
        proposed = torch.zeros_like(state["fooled"])
        proposed[samples] = fooled
        state["best"][samples[kept]] = tried.points[which[kept]]
        state["loss"][samples] = torch.where(improved[which], loss[which], state["loss"][samples])
        state["fooled"] = state["fooled"] | proposed
        return state, Proposal(points.view(batch.x.shape), proposed)

    def done(self, state: State) -> Tensor:
        return state["query"] / self.steps

    def _next(self, batch: Batch, state: State, most: int) -> _Tried:
        """The next candidates of all samples, up to ``most`` of each."""
        self._draw(batch, state)
        query, x = state["query"], batch.x
        slowest = int(query.min())
        # windows of one size at a time: who is ahead waits for the others where the size changes
        end = min([self.steps, *(after + 1 for after in _HALVED_AFTER if after >= slowest)])
        count = torch.minimum(end - query, _BLOCK - query % _BLOCK).clamp_(0, most)
        rows = torch.repeat_interleave(count)
        begin = count.cumsum(0) - count
        ahead = torch.arange(len(rows), device=x.device) - begin[rows]
        place = (query % _BLOCK)[rows] + ahead
        drawn = {name: state[name][rows, place] for name in state.keys() - _SEARCH}
        best = state["best"][rows]
        moves = MOVES[self.threat.norm]
        points = moves.candidate(x[rows], self.threat.radius, best, drawn, self._side(x, slowest))
        return _Tried(rows, ahead, count, begin, points, (points != best).any(dim=1))

    def _draw(self, batch: Batch, state: State) -> None:
        """Draw the numbers of those samples that enter a block of queries."""
        entering = state["query"] % _BLOCK == 0
        if not bool(entering.any()):
            return
        moves, x = MOVES[self.threat.norm], batch.x
        for block in sorted(set((state["query"][entering] // _BLOCK).tolist())):
            rows = (state["query"] == block * _BLOCK).nonzero().squeeze(1)
            sides = torch.tensor([self._side(x, block * _BLOCK + query) for query in range(_BLOCK)])
            drawn = moves.draw(x[rows], batch.draws.rows(rows), 1 + block, sides)
            for name, numbers in drawn.items():
                if name not in state:  # the first block, which all enter together
                    state[name] = numbers
                else:
                    state[name][rows] = numbers

    def _query(self, batch: Batch, state: State, tried: _Tried, oracle: Oracle) -> tuple[Tensor, Tensor]:
        """Loss and claims of candidates; one that is the best point itself is known and costs nothing."""
        loss = state["loss"][tried.rows]
        claimed = torch.zeros(len(loss), dtype=torch.bool, device=loss.device)
        asked = tried.new.nonzero().squeeze(1)
        if len(asked):
            rows = tried.rows[asked]
            images, y = tried.points[asked].view(-1, *batch.x.shape[1:]), batch.y[rows]
            logits = oracle.logits(images, rows)
            loss[asked] = self._loss(logits, y)
            claimed[asked] = logits.argmax(dim=1) != y
        return loss, claimed

    def _loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return _LOSSES[self.loss](logits, y)

    def _side(self, x: Tensor, query: int) -> int:
        height, width = x.shape[2:]
        return MOVES[self.threat.norm].side(share_of_image(query, self.p_init), height, width)


@dataclass(frozen=True)
class _Tried:
    """Candidates of one round.

    Attributes:
        rows: int64 ``[p]`` the samples they belong to. ahead: int64 ``[p]`` how many of that sample come before.
        count, begin: int64 ``[n]`` how many a sample has, and where they begin.
        points: ``[p, d]``. new: bool ``[p]`` those that differ from the sample's best point.
    """

    rows: Tensor
    ahead: Tensor
    count: Tensor
    begin: Tensor
    points: Tensor
    new: Tensor
