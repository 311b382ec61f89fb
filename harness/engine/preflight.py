"""Checks the model before it is attacked, and chooses what makes its passes.

Does it answer, and always the same? What makes an evaluation impossible is a `ModelError`; what makes it doubtful is a
flag. Passes that are faster than the model's own are used where they agree with it (`harness.backends.equivalence`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from harness.audit import kinds
from harness.audit import model as checks
from harness.audit.flags import Flag
from harness.backends import Backend, eager, plain, static
from harness.backends.choose import FEWEST_ROWS, Choice, choose
from harness.backends.equivalence import FEWEST, Guard, chosen
from harness.backends.passes import Passes
from harness.backends.precision import to_try
from harness.backends.rounding import fewest_rows
from harness.engine.judge import Judge
from harness.engine.types import Index, Machine, Pool
from harness.errors import NoGradient
from harness.settings import Settings
from harness.suites import Suite
from harness.threat import ThreatModel
from harness.threat.rng import Draws
from harness.util.images import StoredImages

__all__ = ["Prepared", "batch_size", "prepare"]

_CPU_BATCH, _GPU_BATCH = 128, 512
# An attack's own work for the rows of several passes takes hardly longer than for those of one. But its states must not
# fill the memory: so many numbers in one of their tensors at most.
_PASSES_PER_STEP, _MOST_IN_A_STEP = 4, 1 << 19
# Where not even the images are held in memory, all workers together have so many numbers in one of their tensors.
_MOST_AT_ONCE = 1 << 24
_CIFAR = 3 * 32 * 32


@dataclass(frozen=True)
class Prepared:
    """What was found out about the model, and the machine that attacks it.

    Attributes:
        guard: compares fast passes with the plain model; None where the passes are the plain model's.
        classes: number of logits. flags: doubts. notes: what makes the passes, in plain words.
        forward, backward: int64 ``[n]`` passes spent on each sample.
        first: the plain model's logits on the first samples. steady: whether they are the same in every pass.
    """

    machine: Machine
    guard: Guard | None
    classes: int
    flags: list[Flag]
    notes: list[str]
    forward: Index
    backward: Index
    first: Tensor
    steady: bool

    def changed(self, logits: Tensor) -> Flag | None:
        """Whether ``logits`` of the first samples are another model's, or this one's after it has changed."""
        rows = min(len(logits), len(self.first))
        return checks.state_kept(self.first[:rows], logits[:rows]) if self.steady else None


def prepare(
    model: nn.Module,
    pool: Pool,
    threat: ThreatModel,
    suite: Suite,
    settings: Settings,
    device: torch.device,
    *,
    workers: int = 1,
    pinned: tuple[str, int] | None = None,
) -> Prepared:
    """Try the model on the first samples and make the machine that attacks it.

    Args:
        workers: how many processes will attack at once.
        pinned: the backend and micro-batch to use, as `Machine.choice` says; None takes the fastest. A run that is
            continued needs those that it was begun with, because other ones round differently.

    Raises:
        ModelError: it raises, returns the wrong shape or NaN, or changes its own state.
        InvalidInput: labels beyond its classes.
    """
    # a copy, so that a model which changes its input changes nobody's images
    pair = pool.x[:2].clone().to(device)
    forward, backward = np.zeros(len(pool), np.int64), np.zeros(len(pool), np.int64)
    probe = Passes(model, None, len(pair))
    with checks.refuse_changed_state(model):
        together = probe.logits(pair, f"on the first {'two samples' if len(pair) > 1 else 'sample'}")
        # before the pass with gradients, where torch's own error speaks of leaf variables
        checks.refuse_changed_images(pair.cpu(), pool.x[:2])
        probe.classes = classes = together.shape[1]
        alone = probe.logits(pair[:1], "on the first sample alone") if len(pair) > 1 else together
        again, slope = _with_gradient(probe, pair, "on the first two samples, again")
    checks.refuse_changed_images(pair.cpu(), pool.x[:2])
    checks.refuse_nan(together.cpu(), pool.names)
    checks.refuse_few_classes(classes)
    checks.refuse_unknown_labels(pool.y, classes, pool.names)
    forward[0] += 1
    forward[: len(pair)] += 2 if len(pair) > 1 else 1
    backward[: len(pair)] += slope is not None
    random = checks.randomised(together, again)
    # two passes of a randomised model differ in any case
    dependent = None if random else checks.batch_dependent(together[:1], alone)
    flags = [flag for flag in (None if suite.expects_random else random, dependent) if flag]
    size = batch_size(settings.batch_size, pool.x[0].numel(), device)
    scale = checks.rescaling(together)
    flags += [kinds.LOGITS_RESCALED(factor=scale)] if scale != 1 else []
    judge = Judge(model, threat, classes=classes, limit=size, scale=scale)
    steady = not random and not dependent
    incomparable = _incomparable(random, dependent, slope)
    maker = _Maker(model, judge, settings, pool, device, forward, backward)
    if incomparable is None:
        passes, notes, guard, choice = maker.fastest(threat, pinned)
    else:
        passes, notes, guard = judge.plain(), [f"plain ({incomparable})"], None
        choice = ("plain", min(FEWEST_ROWS, size))
    judge.passes.limit = size = passes.limit
    step_rows = size
    # where images depend on their batch, batches are those that the caller asked for
    if device.type == "cpu" and steady and not settings.compiled:
        passes.micro_batch = judge.passes.micro_batch = choice[1]
        step_rows = max(size, min(_PASSES_PER_STEP * choice[1], _MOST_IN_A_STEP // pool.x[0].numel()))
    elif device.type == "cuda":
        passes.micro_batch = None  # a GPU takes all rows at once: two small passes take longer than one
    if passes.micro_batch is not None:
        notes.append(f"micro-batch:{passes.micro_batch}")
    ahead = passes.forward_micro_batch or size
    if settings.deterministic:
        # points that may be needed later are tried where a batch has room, and that depends on its size
        ahead = 1
        if steady:
            maker.round_alike(passes, judge.passes)
            notes.append(f"deterministic:{passes.fewest}-rows")
    at_once = None
    if isinstance(pool.x, StoredImages):
        at_once = max(step_rows, _MOST_AT_ONCE // pool.x[0].numel() // workers)
    machine = Machine(passes, judge, device, size, ahead, step_rows, at_once, choice)
    return Prepared(machine, guard, classes, flags, notes, forward, backward, together.cpu(), steady)


def _incomparable(random: Flag | None, dependent: Flag | None, gradient: Tensor | None) -> str | None:
    """Why fast passes cannot be compared with the model, so that it must make its passes itself."""
    if random:
        return "the model is randomised"
    if dependent:
        return "the model's output depends on the rest of the batch"
    return "the model has no gradient" if gradient is None else None


def batch_size(wanted: int | str, numel: int, device: torch.device) -> int:
    """The most rows that go through a model together.

    Args:
        wanted: a number, or "auto".
        numel: how many numbers an image has.
    """
    if wanted != "auto":
        return int(wanted)
    budget = (_GPU_BATCH if device.type == "cuda" else _CPU_BATCH) * _CIFAR
    return max(8, min(budget // max(1, numel), 1024))


def _with_gradient(passes: Passes, x: Tensor, call: str) -> tuple[Tensor, Tensor | None]:
    """Logits, and the gradient of their log-sum-exp where the model has gradients."""
    try:
        logits, _, slope = passes.gradient(x, lambda out, part: out.logsumexp(dim=1), call)
    except NoGradient:
        return passes.logits(x, call), None
    return logits, slope


@dataclass(frozen=True)
class _Maker:
    """Makes the passes of an attack: the fastest that agree with the plain model.

    Args:
        forward, backward: int64 ``[n]`` passes of each sample, to which those made here are added.
    """

    model: nn.Module
    judge: Judge
    settings: Settings
    pool: Pool
    device: torch.device
    forward: Index
    backward: Index

    def fastest(
        self, threat: ThreatModel, pinned: tuple[str, int] | None
    ) -> tuple[Passes, list[str], Guard | None, tuple[str, int]]:
        """The passes, what makes them in plain words, the guard that checked them, and backend and micro-batch."""
        copies, left_out = self._copies()
        choices = self._choices(copies, pinned)
        for choice in choices[:-1]:
            guard = Guard(
                self.judge.passes if self.judge.scale == 1 else self.judge.plain(), threat, choice.micro_batch
            )
            passes = self._passes(choice.backend)
            passes.micro_batch = choice.micro_batch
            why, checked = self._disagreement(guard, passes)
            passes.drain()
            self.judge.drain()
            if why is None:
                notes = [*choice.notes, *left_out, checked]
                return passes, notes, guard, (choice.backend.name, choice.micro_batch)
            left_out.append(f"not used: the copy {why}")
        last = choices[-1]
        return self.judge.plain(), [*last.notes, *left_out], None, ("plain", last.micro_batch)

    def _copies(self) -> tuple[list[Backend], list[str]]:
        """Copies to try, the preferred first, and why others could not be made."""
        copies, left_out = [], []
        graphs = self.settings.graphs
        if graphs is None:
            # a graph for each size of batch rounds in its own way
            graphs = self.device.type == "cuda" and not self.settings.deterministic
        for precision in to_try(self.settings.precision, self.device):
            try:
                copy = eager(self.model, precision=precision)
                if self.settings.compiled or graphs:
                    limit = self.judge.passes.limit
                    copies.append(static(copy, largest=limit, compiled=self.settings.compiled, graphs=graphs))
                copies.append(copy)
            except Exception as error:  # a model may hold anything, and then it is attacked as it is
                left_out.append(f"not used: the model cannot be copied ({type(error).__name__}: {error})")
        return copies, left_out

    def _choices(self, copies: list[Backend], pinned: tuple[str, int] | None) -> list[Choice]:
        """What to try in which order, the plain model last."""
        largest = min(self.judge.passes.limit, max(len(self.pool), FEWEST_ROWS))
        if pinned is not None:
            name, micro_batch = pinned
            known = [copy for copy in copies if copy.name == name]
            return [Choice(backend, micro_batch, list(backend.notes)) for backend in (*known, plain(self.model))]
        rows = np.arange(min(FEWEST_ROWS, len(self.pool)))
        x = self.pool.x[: len(rows)].to(self.device)
        if self.settings.deterministic and copies:
            # copies round otherwise than each other, so the preferred one is taken; no bit depends on the micro-batch
            timed, spent = choose(copies[0], (), x, largest=largest)
            micro_batch = timed[0].micro_batch
            choices = [Choice(backend, micro_batch, list(backend.notes)) for backend in (*copies, plain(self.model))]
        else:
            choices, spent = choose(plain(self.model), copies, x, largest=largest)
        np.add.at(self.forward, np.resize(rows, spent.forward), 1)
        np.add.at(self.backward, np.resize(rows, spent.backward), 1)
        return choices

    def _passes(self, backend: Backend) -> Passes:
        like = self.judge.passes
        layout = backend.layout_of(self.pool.x[:1])
        passes = Passes(backend.network, like.classes, like.limit, backend.precision, layout, scale=self.judge.scale)
        if self.device.type == "cuda" and self.settings.batch_size == "auto" and not self.settings.deterministic:
            passes.limit = _fastest_batch(passes, self.pool, passes.limit, self.device)
        return passes

    def round_alike(self, *passes: Passes) -> None:
        """Fill up the small batches of all ``passes``, so that no row's answer depends on the rows beside it."""
        rows = np.arange(min(FEWEST_ROWS, len(self.pool)))
        found = [fewest_rows(each, self.pool.x[: len(rows)].to(self.device)) for each in passes]
        for each, (_, spent) in zip(passes, found, strict=True):
            each.fewest = max(fewest for fewest, _ in found)
            each.drain()
            np.add.at(self.forward, np.resize(rows, spent.forward), 1)
            np.add.at(self.backward, np.resize(rows, spent.backward), 1)

    def _disagreement(self, guard: Guard, passes: Passes) -> tuple[str | None, str]:
        """How the passes differ from the plain model's, if they do, and what was compared."""
        rows = chosen(self.pool.keys, max(FEWEST, guard.size))
        x = self.pool.x[torch.from_numpy(rows)].to(self.device)
        try:
            compared = guard.before(passes, x, Draws(self.pool.keys[rows], self.settings.seed, "preflight"))
        except Exception as error:  # the plain model has just passed such images, so the copy is at fault
            return f"failed: {error}", ""
        for comparison in compared:
            self.forward[rows] += comparison.forward
            self.backward[rows] += comparison.backward
        last = compared[-1]
        if last.agreed:
            return None, f"checked at {2 * len(rows)} points in batches of {guard.size}: {last}"
        sample = int(self.pool.names[rows[last.worst]])
        where = "clean images" if last is compared[0] else "points inside the threat model"
        return f"disagrees with the plain model on {where}, most on sample {sample}: {last}", ""


def _fastest_batch(passes: Passes, pool: Pool, start: int, device: torch.device) -> int:
    """Double the batch as long as that makes a GPU faster per sample; running out of memory ends the search."""
    x = pool.x[:1].to(device)
    best, best_rate, size = start, 0.0, start
    while size <= 8 * start and (size <= len(pool) or size == start):
        batch = x.expand(size, *x.shape[1:]).contiguous()
        passes.limit, before = size, passes.retreats
        rates = []
        for _ in range(2):
            passes.drain()
            _with_gradient(passes, batch, "while looking for the batch size")
            rates.append(size / max(passes.drain(), 1e-9))
        if passes.retreats > before or rates[-1] < 1.05 * best_rate:
            break
        best, best_rate, size = size, rates[-1], 2 * size
    return min(best, max(8, len(pool)))
