"""Predicting whether FAB's next step will cross the boundary, which saves passes and changes no point.

Steps follow a pattern: across the boundary, back, across again. As a processor predicts branches, the state of a
sample holds whether its last two steps crossed, and how often a crossing has followed each of the four histories.

Yeh & Patt 1991, "Two-level adaptive training branch prediction".
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.attacks._base import State

__all__ = ["first_guess", "guess", "learn"]

# crossings expected after: two quiet steps, quiet then crossed, crossed then quiet, two crossings
_PRIOR = (0.4, 0.2, 0.7, 0.8)
_RATE = 0.25
# where a forward pass for nothing and a backward pass for nothing weigh the same: a backward costs more
_LEVEL = 0.45


def first_guess(like: Tensor) -> State:
    """The prediction's state before the first step, for as many samples as ``like`` has."""
    return {
        "history": torch.zeros(len(like), dtype=torch.long, device=like.device),
        "odds": torch.tensor(_PRIOR, dtype=torch.float32, device=like.device).repeat(len(like), 1),
    }


def guess(state: State) -> Tensor:
    """Whose next step will cross: bool ``[n]``."""
    return state["odds"].gather(1, state["history"][:, None]).squeeze(1) > _LEVEL


def learn(state: State, crossed: Tensor) -> None:
    """Update the odds with what happened."""
    history, odds = state["history"][:, None], state["odds"]
    expected = odds.gather(1, history)
    outcome = crossed[:, None].to(odds.dtype)
    odds.scatter_(1, history, expected + _RATE * (outcome - expected))
    state["history"] = (state["history"] * 2 + crossed) % len(_PRIOR)
