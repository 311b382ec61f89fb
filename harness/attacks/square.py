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
from typing import ClassVar

import torch
from torch import Tensor

from harness.attacks._arguments import at_least_one
from harness.attacks._base import Attack, Batch, Oracle, Proposal, State
from harness.attacks._losses import cross_entropy, margin
from harness.errors import InvalidInput, UnknownName
from harness.threat import ThreatModel
from harness.threat.norms import Moves

__all__ = ["share_of_image", "square"]

_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"margin": margin, "ce": cross_entropy}
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
# a generator is set up per sample and draw, so the numbers of many queries are drawn at once
_BLOCK = 128
# one candidate in 20 or 40 is kept, so that of more than this many at once most would be wasted
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
    """Square Attack in any norm that has `moves`: one forward pass per query at most, and one for the first point.

    A candidate starts from the best point so far, and is rarely better. So where few samples are left and a batch
    is not full, a sample's next candidates are made and tried together, as if all were going to be rejected. The
    first that is not ends the round, and those after it are wasted: the search is the same, query by
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
        InvalidInput: a parameter outside its range, or a norm without moves; from the attack, inputs that are not
            ``[n, C, H, W]``.
        UnknownName: another loss.
    """
    at_least_one("square", queries=queries, restarts=restarts)
    if not 0 < p_init <= 1:
        raise InvalidInput(f"square needs p_init above 0 and at most 1, got {p_init}")
    if loss not in _LOSSES:
        raise UnknownName("loss", loss, _LOSSES)
    moves = threat.geometry.moves()
    return _Square(threat=threat, moves=moves, runs=restarts, steps=queries, p_init=p_init, loss=loss)


def share_of_image(query: int, p_init: float) -> float:
    """Share of the image that the windows of query number ``query`` (from 0) cover."""
    return math.ldexp(p_init, -bisect_left(_HALVED_AFTER, query))


@dataclass(frozen=True)
class _Square(Attack):
    """State: ``best`` points (flat), their ``loss``, whether they ``fooled`` the model, the number of the next
    ``query`` of each sample, and the draws of its current block of queries, ``[n, block, ...]`` each."""

    gradient_free: ClassVar[bool] = True
    step_cost: ClassVar[int] = 1

    threat: ThreatModel
    moves: Moves
    runs: int
    steps: int
    p_init: float
    loss: str

    def unfit(self, shape: tuple[int, ...]) -> str | None:
        if len(shape) == 3:
            return None
        sizes = ", ".join(map(str, shape))
        return (
            f"square attacks images [n, C, H, W], got inputs of shape [n, {sizes}]: choose a suite without it, such as "
            "pgd, or a TOML file of the other steps"
        )

    def start(self, batch: Batch, oracle: Oracle, run: int) -> tuple[State, Proposal]:
        points = self.moves.first(batch.x, self.threat.radius, batch.draws, 0)
        images = points.view(batch.x.shape)
        logits = oracle.logits(images)
        claimed = logits.argmax(dim=1) != batch.y
        query = torch.zeros_like(batch.y)
        state = {"best": points, "loss": self._loss(logits, batch.y), "fooled": claimed, "query": query}
        return state, Proposal(images, claimed)

    def step(self, batch: Batch, state: State, oracle: Oracle, i: int) -> tuple[State, Proposal]:
        slowest, fastest = map(int, torch.aminmax(state["query"]))
        if slowest >= self.steps:
            none_claimed = torch.zeros_like(state["fooled"])
            return state, Proposal(batch.x, none_claimed, over=~none_claimed)
        most = max(1, min(oracle.micro_batch // len(batch), _MOST_AHEAD))
        step = self._next if most == 1 and slowest == fastest else self._ahead
        proposal = step(batch, state, oracle, slowest, most)
        return state, proposal if fastest + most < self.steps else proposal._replace(over=state["query"] >= self.steps)

    def done(self, state: State) -> Tensor:
        return state["query"] / self.steps

    def _next(self, batch: Batch, state: State, oracle: Oracle, query: int, most: int) -> Proposal:
        """One query of all samples, which are all at the same query."""
        moves, x = self.moves, batch.x
        if query % _BLOCK == 0:
            self._draw(batch, state)
        drawn = {name: state[name].select(1, query % _BLOCK) for name in state.keys() - _SEARCH}
        points, new = moves.candidate(x, self.threat.radius, state["best"], drawn, self._side(x, query), None)
        state["query"] = state["query"] + 1
        # a candidate that is the best point itself is known and costs nothing
        tried, proposal = new.nonzero().squeeze(1), Proposal(points.view(x.shape), torch.zeros_like(new))
        if len(tried):
            candidates = points if len(tried) == len(points) else points.index_select(0, tried)
            loss, wrong = self._try(batch, candidates, tried, oracle)
            kept = loss > state["loss"].index_select(0, tried)
            if wrong is not None and bool(wrong.any()):
                proposal.claimed.index_copy_(0, tried, wrong)
                # a first misleading point is kept whatever its loss, and the loss to beat stays
                loss = torch.where(kept, loss, state["loss"][tried])
                kept = kept | (wrong & ~state["fooled"][tried])
                state["fooled"] = state["fooled"] | proposal.claimed
            self._keep(state, tried, candidates, loss, kept)
        return proposal

    def _ahead(self, batch: Batch, state: State, oracle: Oracle, slowest: int, most: int) -> Proposal:
        """Up to ``most`` queries of each sample, until the first that is no rejection."""
        moves, x, none_claimed = self.moves, batch.x, torch.zeros_like(state["fooled"])
        self._draw(batch, state)
        queries: list[int] = state["query"].tolist()
        # windows of one size at a time: where the size changes, samples that are further on wait for the others
        end = min([self.steps, *(after + 1 for after in _HALVED_AFTER if after >= slowest)])
        counts = [max(0, min(most, end - query, _BLOCK - query % _BLOCK)) for query in queries]
        owners = [sample for sample, count in enumerate(counts) for _ in range(count)]
        candidates = [query + ahead for query, count in zip(queries, counts, strict=True) for ahead in range(count)]
        rows, places = torch.tensor([owners, [query % _BLOCK for query in candidates]], device=x.device)
        drawn = {name: state[name][rows, places] for name in state.keys() - _SEARCH}
        points, new = moves.candidate(x, self.threat.radius, state["best"], drawn, self._side(x, slowest), rows)
        tried = new.nonzero().squeeze(1)
        # per sample, the first of the tried candidates that is no rejection
        first: dict[int, int] = {}
        if len(tried):
            points, rows = points.index_select(0, tried), rows.index_select(0, tried)
            losses, wrong = self._try(batch, points, rows, oracle)
            improved = losses > state["loss"].index_select(0, rows)
            ends = improved if wrong is None else improved | wrong
            for place in ends.nonzero().squeeze(1).tolist():
                first.setdefault(owners[tried[place]], place)
        after = [query + count for query, count in zip(queries, counts, strict=True)]
        for sample, place in first.items():
            after[sample] = candidates[tried[place]] + 1
        state["query"] = torch.tensor(after, device=x.device)
        if not first:  # as most rounds of few candidates end
            return Proposal(x, none_claimed)
        samples, chosen = torch.tensor([list(first), list(first.values())], device=x.device)
        found, loss, kept = points.index_select(0, chosen), losses.index_select(0, chosen), improved[chosen]
        if wrong is None:
            self._keep(state, samples, found, loss, kept)
            return Proposal(x, none_claimed)
        claimed = wrong[chosen]
        # a first misleading point is kept whatever its loss, and the loss to beat stays
        loss = torch.where(kept, loss, state["loss"][samples])
        self._keep(state, samples, found, loss, kept | (claimed & ~state["fooled"][samples]))
        proposed = none_claimed.index_copy(0, samples, claimed)
        state["fooled"] = state["fooled"] | proposed
        return Proposal(x.flatten(1).index_copy(0, samples, found).view(x.shape), proposed)

    @staticmethod
    def _keep(state: State, rows: Tensor, points: Tensor, loss: Tensor, kept: Tensor) -> None:
        """Those of the candidates of the samples ``rows`` that are ``kept`` become their best points."""
        chosen = kept.nonzero().squeeze(1)
        if len(chosen):
            owners = rows.index_select(0, chosen)
            state["best"].index_copy_(0, owners, points.index_select(0, chosen))
            state["loss"].index_copy_(0, owners, loss.index_select(0, chosen))

    def _draw(self, batch: Batch, state: State) -> None:
        """Draw the numbers of the samples that begin a block of queries."""
        entering = state["query"] % _BLOCK == 0
        if not bool(entering.any()):
            return
        moves, x = self.moves, batch.x
        for block in sorted(set((state["query"][entering] // _BLOCK).tolist())):
            rows = (state["query"] == block * _BLOCK).nonzero().squeeze(1)
            sides = torch.tensor([self._side(x, block * _BLOCK + query) for query in range(_BLOCK)])
            drawn = moves.draw(x[rows], batch.draws.rows(rows), 1 + block, sides)
            for name, numbers in drawn.items():
                if name not in state:  # the first block, which all enter together
                    state[name] = numbers
                else:
                    state[name][rows] = numbers

    def _try(self, batch: Batch, points: Tensor, owners: Tensor, oracle: Oracle) -> tuple[Tensor, Tensor | None]:
        """Losses and claims of the candidates ``points [p, d]`` of the samples ``owners [p]``; None for no claims."""
        logits, y = oracle.logits(points.view(-1, *batch.x.shape[1:]), owners), batch.y.index_select(0, owners)
        loss = self._loss(logits, y)
        # mostly no candidate is misclassified; at a margin of exactly zero the order of the classes decides
        if self.loss == "margin" and float(loss.max()) < 0:
            return loss, None
        return loss, logits.argmax(dim=1) != y

    def _loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return _LOSSES[self.loss](logits, y)

    def _side(self, x: Tensor, query: int) -> int:
        height, width = x.shape[2:]
        return self.moves.side(share_of_image(query, self.p_init), height, width)
