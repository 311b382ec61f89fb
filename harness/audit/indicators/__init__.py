"""Indicators that an attack failed: one file each, a function from an `Attacked` to the flags that it raises.

They look at what the attacks left behind, and attack a few samples themselves in simple ways that must not do better
(Carlini et al. 2019, arXiv 1902.06705; Pintor et al. 2022, arXiv 2106.09947).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from harness.audit import kinds
from harness.audit.attacked import Attacked
from harness.audit.flags import Flag
from harness.util import plugins
from harness.util.user_file import one_line

__all__ = ["Attacked", "audit", "names"]

Indicator = Callable[[Attacked], Iterable[Flag]]


def names() -> tuple[str, ...]:
    """The indicators."""
    return plugins.own_members(__name__)


def audit(attacked: Attacked) -> list[Flag]:
    """The flags of all indicators; where one fails, a note says so.

    The global random state is the same afterwards.
    """
    with torch.random.fork_rng(), torch.enable_grad():
        return [flag for name in names() for flag in _flags(name, attacked)]


def _flags(name: str, attacked: Attacked) -> list[Flag]:
    indicator: Indicator = plugins.lookup(__name__, name, "indicator", Callable)
    try:
        return list(indicator(attacked))
    except Exception as error:  # a model may raise anything, and other indicators may still tell something
        return [kinds.CHECK_FAILED(check=name, reason=one_line(error)[:150])]
