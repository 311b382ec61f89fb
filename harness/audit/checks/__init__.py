"""Checks of a model before it is attacked: one file each, a function from a `Subject` to the flags that it raises.

Checks that are registered, by a file of this folder or by an installed package, are made of every model; one that is
named as ``FILE.py:NAME`` is made where it is named. A check adds flags to a result and changes no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.audit.flags import Flag
from harness.errors import HarnessError, InvalidInput, ModelError
from harness.threat import ThreatModel
from harness.util import plugins
from harness.util.user_file import one_line

__all__ = ["SAMPLES", "Subject", "names", "run"]

SAMPLES = 32
"""How many samples checks are given, where there are so many."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What a check is given.

    Attributes:
        model: from images to logits, as it was loaded. A check leaves it as it is.
        x: the first `SAMPLES` images, ``[n, ...]`` in [0, 1], on the model's device.
        y: their classes, int64 ``[n]``.
        logits: what the model answers on them, ``[n, k]``, detached.
        threat: what the model will be attacked under.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    logits: Tensor
    threat: ThreatModel


Check = Callable[[Subject], Iterable[Flag]]


def names() -> tuple[str, ...]:
    """The registered checks."""
    return plugins.members(__name__)


def run(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, *, named: Sequence[str] = ()) -> list[Flag]:
    """The flags of the registered checks and of those that are ``named`` besides.

    The global random state is the same afterwards.

    Args:
        named: registered names or ``FILE.py:NAME``.

    Raises:
        UnknownName: no check of that name.
        HarnessError: a check that fails, or that gives something else than flags.
        ModelError: a model that fails on the images.
    """
    chosen: dict[str, Check] = {
        name: plugins.lookup(__name__, name, "check", Callable) for name in dict.fromkeys([*names(), *named])
    }
    if not chosen or not len(x):
        return []
    like = next((parameter for parameter in model.parameters() if parameter.is_floating_point()), x)
    x, y = x[:SAMPLES].to(like.device, like.dtype), y[:SAMPLES].to(like.device)
    with torch.random.fork_rng(), torch.enable_grad():
        subject = Subject(model, x, y, _logits(model, x), threat)
        return [flag for name, check in chosen.items() for flag in _flags(name, check, subject)]


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    try:
        with torch.no_grad():
            logits: Tensor = model(x)
    except Exception as error:
        raise ModelError(f"the model fails on the first {len(x)} images: {one_line(error)}") from error
    return logits


def _flags(name: str, check: Check, subject: Subject) -> list[Flag]:
    try:
        flags = list(check(subject))
    except HarnessError:
        raise
    except Exception as error:
        raise HarnessError(f"the check {name} fails: {one_line(error)}") from error
    if not all(isinstance(flag, Flag) for flag in flags):
        raise InvalidInput(f"the check {name} must give flags, got {flags!r}")
    return flags
