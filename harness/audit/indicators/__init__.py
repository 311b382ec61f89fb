"""Indicators that an attack failed: one file each, with an `Indicator` of the file's name.

They look at what the attacks left behind, and attack a few samples themselves in simple ways that must not do better
(Carlini et al. 2019, arXiv 1902.06705; Pintor et al. 2022, arXiv 2106.09947). What an indicator finds out of a sample
does not depend on the other samples, but for the perturbations that it takes from them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from harness.audit import kinds, trials
from harness.audit.attacked import Attacked, Indicator
from harness.audit.flags import Flag
from harness.audit.trials import Trial
from harness.util import plugins
from harness.util.user_file import one_line

__all__ = ["Attacked", "Indicator", "codes", "flags", "names", "probe"]


def names() -> tuple[str, ...]:
    """The indicators."""
    return plugins.own_members(__name__)


def codes() -> frozenset[str]:
    """The codes of the flags that indicators raise."""
    return frozenset(kind.code for name in names() for kind in _indicator(name).raises)


def probe(attacked: Attacked) -> tuple[list[Trial], list[Flag]]:
    """What all indicators find out of some samples; where one fails, a note says so.

    The global random state is the same afterwards.
    """
    made: list[Trial] = []
    failed: list[Flag] = []
    with torch.random.fork_rng(), torch.enable_grad():
        for name in names():
            try:
                made += _indicator(name).probe(attacked, name)
            except Exception as error:  # a model may raise anything, and other indicators may still tell something
                failed.append(kinds.CHECK_FAILED(check=name, reason=one_line(error)[:150]))
    return made, failed


def flags(made: Iterable[Trial], total: int) -> list[Flag]:
    """The flags of all indicators.

    Args:
        made: the trials of an evaluation, or of all of its shards. total: how many samples it has.
    """
    taken = trials.first(made, trials.most(total))
    return [
        flag for name in names() for flag in _indicator(name).flags([each for each in taken if each.indicator == name])
    ]


def _indicator(name: str) -> Indicator:
    indicator: Indicator = plugins.lookup(__name__, name, "indicator", Indicator)
    return indicator
