"""pyautoattack called exactly as it comes: its steps, its batches, its order, its random numbers.

Nothing of the algorithm is changed; what it does to its surroundings is undone: global random state, the trace
function, gradients left on the parameters, and the counter that makes one dynamic defence flag every later model.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from pyautoattack import AutoAttack, checks
from torch import Tensor, nn

from harness.audit import kinds
from harness.audit.flags import Flag, unique
from harness.errors import InvalidInput, ModelError, UnknownName
from harness.threat import ThreatModel

__all__ = ["VERSIONS", "ReferenceOutcome", "ReferenceStep", "attack"]

VERSIONS = {"plus": 10, "rand": 3, "standard": 10}
"""Versions of the reference, and the fewest classes that its attacks can index."""

_BROKEN = re.compile(r"(\S+) - \d+/\d+ - (\d+) out of \d+ successfully perturbed")

_KINDS = (
    ("randomized defense", kinds.RANDOMISED),
    ("probability distribution", kinds.PROBABILITIES),
    ("dynamic defense", kinds.DYNAMIC_DEFENCE),
    ("zero gradient", kinds.ZERO_GRADIENT),
    ("Square Attack has decreased", kinds.GRADIENT_MASKING),
)
"""What the warnings of the reference say, and the flags that say the same here."""


@dataclass(frozen=True)
class ReferenceStep:
    """One attack of the reference (or "clean", the checks and the clean pass).

    Attributes:
        name: its name in the reference.
        before, after: samples that survive.
        forward, backward: samples passed through the model.
        seconds: its wall time.
    """

    name: str
    before: int
    after: int
    forward: int
    backward: int
    seconds: float


@dataclass(frozen=True)
class ReferenceOutcome:
    """What the reference found.

    Attributes:
        clean: the model's class without attack, from the pass that the reference made, int64 ``[n]``.
        robust: bool ``[n]``.
        points: the images it returned, ``[n, ...]``; the clean image where nothing was found.
        labels: the model's class on those, as it reported them, int64 ``[n]``.
        steps: "clean", then every attack that ran.
        flags: its warnings, each once.
        seconds: wall time.
    """

    clean: Tensor
    robust: Tensor
    points: Tensor
    labels: Tensor
    steps: tuple[ReferenceStep, ...]
    flags: tuple[Flag, ...]
    seconds: float


def attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel | str,
    *,
    version: str = "standard",
    seed: int = 0,
    batch_size: int = 250,
    device: torch.device | str = "cpu",
) -> ReferenceOutcome:
    """Run pyautoattack on ``model``.

    Args:
        model: images in [0, 1] to logits, on ``device``, in eval mode.
        x: float32 ``[n, C, H, W]`` in [0, 1].
        y: int64 ``[n]``.
        threat: for example "Linf:8/255".
        version: one of `VERSIONS`.
        seed: the reference starts its generator afresh from it for every batch.
        batch_size: samples a batch; another one draws other random numbers.
        device: where the model is.

    Raises:
        UnknownName: a version or norm that there is not.
        InvalidInput: no samples, or too few classes for the version.
        ModelError: the model failed inside the reference.
    """
    if version not in VERSIONS:
        raise UnknownName("AutoAttack version", version, VERSIONS)
    if batch_size < 1:
        raise InvalidInput(f"the batch size must be at least 1, got {batch_size}")
    if len(x) == 0 or len(x) != len(y):
        raise InvalidInput(f"expected at least one image and as many labels, got {len(x)} and {len(y)}")
    parsed = ThreatModel.parse(threat)
    journal = _Journal(len(x))
    counted = _Counted(model, journal, VERSIONS[version])
    with _undone(model):
        adversary = AutoAttack(counted, norm=parsed.norm, eps=parsed.radius, seed=seed, version="custom", device=device)
        # the parts of it that speak, speak to the journal; its global logger is left alone
        adversary.logger = adversary.apgd.logger = adversary.apgd_targeted.logger = journal
        adversary.version = version
        adversary._set_version(version)
        points, labels = _call(adversary, x, y, batch_size)
    ended = time.perf_counter()
    robust = labels == y
    return ReferenceOutcome(
        clean=torch.cat(journal.predicted)[-len(x) :],
        robust=robust,
        points=points.detach(),
        labels=labels,
        steps=journal.steps(int(robust.sum()), ended),
        flags=_flags(journal.warnings),
        seconds=ended - journal.began["clean"],
    )


def _call(adversary: AutoAttack, x: Tensor, y: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    try:
        points, labels = adversary.run_standard_evaluation(x, y, batch_size=batch_size)
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        raise ModelError(f"the model failed inside the reference AutoAttack: {error}") from error
    return points, labels


class _Journal:
    """Takes the place of the reference's logger: who runs when, what it broke, what it warned of."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.warnings: list[str] = []
        self.forward: Counter[str] = Counter()
        self.backward: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        self.current = "clean"
        # before the first attack; the last of these are of the pass over all samples, those before it of checks
        self.predicted: list[Tensor] = []
        self.began = {"clean": time.perf_counter()}

    def debug(self, message: str) -> None:
        if message.startswith("running "):
            self.current = message.removeprefix("running ")
            self.began[self.current] = time.perf_counter()
        elif message.startswith("no robust datapoints left"):
            del self.began[self.current]
        elif match := _BROKEN.fullmatch(message):
            self.broken[match[1]] += int(match[2])

    def info(self, message: str) -> None:
        """Nothing in these messages is needed."""

    def warning(self, message: str) -> None:
        self.warnings.append(message)

    def steps(self, robust: int, ended: float) -> tuple[ReferenceStep, ...]:
        """One row a step; ``robust`` samples survive all of them, at the time ``ended``."""
        surviving = robust + self.broken.total()
        ends = [*list(self.began.values())[1:], ended]
        rows = []
        for (name, began), end in zip(self.began.items(), ends, strict=True):
            before = self.samples if name == "clean" else surviving
            surviving -= self.broken[name]
            rows.append(ReferenceStep(name, before, surviving, self.forward[name], self.backward[name], end - began))
        return tuple(rows)


class _Counted(nn.Module):
    """The model, its passes counted in samples and booked on the step that runs."""

    def __init__(self, model: nn.Module, journal: _Journal, fewest_classes: int) -> None:
        super().__init__()
        self.model = model
        self.journal = journal
        self.fewest_classes = fewest_classes

    def forward(self, x: Tensor) -> Tensor:
        step, samples = self.journal.current, len(x)
        logits = self.model(x)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != samples:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(f"expected logits of shape ({samples}, classes) from the model, got {got}")
        if logits.shape[1] < self.fewest_classes:
            raise InvalidInput(
                f"this version of the reference AutoAttack needs at least {self.fewest_classes} classes, "
                f"the model has {logits.shape[1]}; the suite autoattack adapts to fewer"
            )
        self.journal.forward[step] += samples
        if step == "clean":
            self.journal.predicted.append(logits.detach().argmax(dim=1))
        if logits.requires_grad:

            def count(_: Tensor) -> None:
                self.journal.backward[step] += samples

            logits.register_hook(count)  # type: ignore[no-untyped-call]
        return logits


@contextmanager
def _undone(model: nn.Module) -> Iterator[None]:
    """Puts back what the reference changes around itself."""
    trace = sys.gettrace()
    kept = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in kept:
        parameter.grad = None
    checks.funcs.update(dict.fromkeys(checks.funcs, 0))
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        sys.settrace(trace)
        checks.funcs.update(dict.fromkeys(checks.funcs, 0))
        for parameter, gradient in kept:
            parameter.grad = gradient


def _flags(messages: list[str]) -> tuple[Flag, ...]:
    """Warnings as flags, each once, in the order heard; an unknown one in its own words."""
    flags: list[Flag] = []
    for message in messages:
        known = [kind() for sign, kind in _KINDS if sign in message]
        flags += known or [kinds.REFERENCE_WARNING.saying(message)]
    return tuple(unique(flags))
