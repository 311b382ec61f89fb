"""Whether the model is randomised, also where that shows rarely or is hidden by a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.audit.subject import Subject, apart

__all__ = ["randomness"]

_CALLS, _ROUNDING = 32, 1e-4
_NAMES = ("torch", "numpy", "Python")


def randomness(subject: Subject) -> Iterator[Flag]:
    """Ask for the same images many times, and watch the global generators meanwhile."""
    if subject.expects_random:
        return
    x = subject.x[:1]
    first = subject.ask(x)
    differ = sum(bool((apart(first, subject.ask(x)) > _ROUNDING).any()) for _ in range(_CALLS - 1))
    if differ:
        yield kinds.RANDOMISED(calls=_CALLS, differ=differ)
    drawn, seeded = _generators(subject)
    if seeded:
        yield kinds.SEEDED_INSIDE(generators=", ".join(seeded))
    elif drawn and not differ:
        yield kinds.RANDOM_NUMBERS(generators=", ".join(drawn), calls=_CALLS)


def _generators(subject: Subject) -> tuple[list[str], list[str]]:
    """The generators that a call draws from, and those that it seeds: whose state does not depend on that before."""
    states = []
    with torch.random.fork_rng():
        for seed in (1, 2):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002  # it is what a model may use
            torch.manual_seed(seed)
            before = _state(subject)
            subject.ask(subject.x[:1])
            states.append((before, _state(subject)))
    (first, after_first), (second, after_second) = states
    changed = [a != b or c != d for a, b, c, d in zip(first, after_first, second, after_second, strict=True)]
    equal = [a == b for a, b in zip(after_first, after_second, strict=True)]
    drawn = [name for name, moved in zip(_NAMES, changed, strict=True) if moved]
    seeded = [name for name, moved, same in zip(_NAMES, changed, equal, strict=True) if moved and same]
    return drawn, seeded


def _state(subject: Subject) -> tuple[Any, ...]:
    device = subject.x.device
    state = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
    legacy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    numpy = legacy["state"]["key"].tobytes(), legacy["state"]["pos"], legacy["gauss"]
    return state.numpy().tobytes(), numpy, random.getstate()
