"""What indicators found out about single samples: shards keep it, so that the flags of the whole follow from all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from harness.util.validation import Record

__all__ = ["Among", "Trial", "count", "first", "most", "order"]

Among = Literal["all", "correct", "survivors", "broken"]
"""Which samples some are taken of: all, those classified correctly without attack, and what became of these."""

_FEWEST, _MOST, _SHARE = 4, 16, 8
# the golden ratio's multiples lie evenly on a circle: so do the first few of any samples that neighbour each other
_GOLDEN = 0x9E3779B97F4A7C15


class Trial(Record):
    """What an indicator found out about one sample.

    Attributes:
        indicator: its name. among: what the sample was taken of. index: its position in the data set.
        outcomes: by what was tried, whether it happened.
    """

    indicator: str = Field(max_length=60)
    among: Among
    index: int = Field(ge=0, lt=1 << 63)
    outcomes: dict[str, bool] = Field(default_factory=dict, max_length=20)


def most(total: int) -> int:
    """How many samples indicators attack, of an evaluation of ``total``: an eighth, but at least 4 and at most 16."""
    return max(_FEWEST, min(_MOST, total // _SHARE))


def order(index: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """In which order samples are taken, as places in ``index [n]``, their positions in the data set.

    Which of two comes first depends on no other sample, so that the first few of all samples are among the first few
    of their shards.
    """
    return np.argsort(index.astype(np.uint64) * np.uint64(_GOLDEN), kind="stable")


def first(trials: Iterable[Trial], few: int) -> list[Trial]:
    """Of the trials of several shards those that an evaluation of all their samples makes: ``few`` of each kind."""
    kinds: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        kinds.setdefault((trial.indicator, trial.among), []).append(trial)
    return [
        found[place]
        for found in kinds.values()
        for place in order(np.array([trial.index for trial in found])).tolist()[:few]
    ]


def count(trials: Sequence[Trial], outcome: str) -> int:
    """For how many samples something happened."""
    return sum(trial.outcomes.get(outcome, False) for trial in trials)
