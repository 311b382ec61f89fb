"""Checks of a model before it is attacked: one file each, a function from a `Subject` to the flags that it raises.

Checks that are registered, by a file of this folder or by an installed package, are made of every model; one that is
named as ``FILE.py:NAME`` is made where it is named. A check adds flags to a result and changes no verdict; a flag of
the severity "refuse" ends the evaluation before the attack.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.audit.model import refuse_changed_state
from harness.audit.subject import SAMPLES, Subject
from harness.errors import HarnessError, InvalidInput, ModelError
from harness.threat import ThreatModel
from harness.util import plugins
from harness.util.images import Images
from harness.util.user_file import one_line

__all__ = ["SAMPLES", "Subject", "added", "audit", "names", "run"]

Check = Callable[[Subject], Iterable[Flag]]


def names() -> tuple[str, ...]:
    """The registered checks."""
    return plugins.members(__name__)


def added() -> tuple[str, ...]:
    """The registered checks that are not this package's own."""
    own = plugins.own_members(__name__)
    return tuple(name for name in names() if name not in own)


def audit(
    model: nn.Module,
    x: Images,
    y: Tensor,
    threat: ThreatModel,
    *,
    expects_random: bool = False,
    batch_size: int = 128,
) -> list[Flag]:
    """The flags of this package's own checks, on the model as it is going to be attacked.

    A model that does not even answer with logits is left to the passes of the attack, which refuse it by name. Where a
    check fails, a note says so.

    Args:
        x: ``[n, ...]`` in [0, 1]; y: int64 ``[n]``.
        expects_random: whether the attacks average over a model's randomness.
        batch_size: how many images an attack sends through the model together.

    Raises:
        ModelError: a flag that refuses the model, as the sentence of that flag.
    """
    with _left_alone(model):
        try:
            subject = _subject(model, x, y, threat, expects_random, batch_size)
        except Exception:
            return []
        if not _has_logits(subject):
            return []
        flags: list[Flag] = []
        for name in sorted(plugins.own_members(__name__)):
            flags += _none_refuses(_own_flags(name, subject))
        return flags


def run(model: nn.Module, x: Images, y: Tensor, threat: ThreatModel, chosen: Sequence[str]) -> list[Flag]:
    """The flags of ``chosen`` checks.

    The global random state is the same afterwards.

    Args:
        chosen: registered names or ``FILE.py:NAME``.

    Raises:
        UnknownName: no check of that name.
        HarnessError: a check that fails, or that gives something else than flags.
        ModelError: a model that fails on the images, or a flag that refuses it.
    """
    members: dict[str, Check] = {name: _check(name) for name in dict.fromkeys(chosen)}
    if not members or not len(x):
        return []
    with torch.random.fork_rng(), torch.enable_grad():
        try:
            subject = _subject(model, x, y, threat)
        except Exception as error:
            raise ModelError(f"the model fails on {min(len(x), SAMPLES)} images: {one_line(error)}") from error
        return _none_refuses(flag for name, check in members.items() for flag in _flags(name, check, subject))


def _none_refuses(flags: Iterable[Flag]) -> list[Flag]:
    """The flags, if none of them refuses the model.

    Raises:
        ModelError: in the words of the first that does.
    """
    kept = list(flags)
    refused = next((flag for flag in kept if flag.severity == "refuse"), None)
    if refused is not None:
        raise ModelError(refused.text)
    return kept


def _subject(
    model: nn.Module,
    x: Images,
    y: Tensor,
    threat: ThreatModel,
    expects_random: bool = False,
    batch_size: int = 128,
) -> Subject:
    like = next((parameter for parameter in model.parameters() if parameter.is_floating_point()), x[:1])
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    rows = torch.linspace(0, len(x) - 1, min(len(x), SAMPLES)).round().long()
    images, labels = x[rows].to(like.device, dtype), y[rows].to(like.device)
    with torch.no_grad():
        logits = torch.cat([model(part.clone()) for part in torch.split(images, batch_size)])
    return Subject(model, images, labels, logits, threat, expects_random, batch_size)


def _has_logits(subject: Subject) -> bool:
    logits: object = subject.logits
    return (
        isinstance(logits, Tensor)
        and logits.dim() == 2
        and logits.shape[0] == len(subject.x)
        and logits.shape[1] > 1
        and logits.is_floating_point()
        and bool(torch.isfinite(logits).all())
    )


@contextmanager
def _left_alone(model: nn.Module) -> Iterator[None]:
    """The model's tensors and all global random states are as before afterwards; a model that changes is refused."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # a model may use it
    try:
        with refuse_changed_state(model), torch.random.fork_rng(), torch.enable_grad():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _check(name: str) -> Check:
    check: Check = plugins.lookup(__name__, name, "check", Callable)
    return check


def _own_flags(name: str, subject: Subject) -> list[Flag]:
    try:
        return list(_check(name)(subject))
    except Exception as error:  # a model may raise anything, and other checks may still tell something
        return [kinds.CHECK_FAILED(check=name, reason=one_line(error)[:150])]


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
