"""A look at the model before it is attacked: does it answer, and always the same?

A handful of passes on the first two samples. What makes an evaluation impossible is a `ModelError`; what
makes it doubtful is a flag.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.audit import kinds
from harness.audit.flags import Flag
from harness.backends import Kernels, Noted, accelerate, noted
from harness.backends.passes import Padded, Passes
from harness.engine.judge import Judge
from harness.engine.types import Index, Machine, Pool
from harness.errors import InvalidInput, ModelError, NoGradient
from harness.settings import Settings
from harness.suites import Suite
from harness.threat import ThreatModel

__all__ = ["Look", "look", "probabilities", "refuse_nan", "threads"]

_CPU_BATCH, _GPU_BATCH = 128, 512
_GPU_LANES = 512
# what a layer returns for a batch should fill a core's cache and stay in it: so many numbers. In bfloat16 they are half
# as long, but batches twice as large would be hardly faster, and take memory
_CPU_CACHE = 3 << 17
# below, wide networks load their weights for too few images; above, nothing is gained
_FEWEST_LANES, _MOST_LANES = 24, 256
# what an attack does between two passes takes hardly longer for the rows of several passes than for those of one, and
# parts of them still fill a pass; but their states must not fill the memory (numbers in one state tensor)
_BUNDLED, _MOST_BUNDLED = 4, 1 << 19
_CIFAR, _WIDTH = 3 * 32 * 32, 5


@dataclass(frozen=True)
class Look:
    """What was seen, and the machine that was built on it.

    Attributes:
        classes: number of logits. flags: doubts. notes: how passes were made fast.
        forward, backward: int64 ``[n]`` passes spent on looking.
        first: the plain model's logits on the first samples. steady: whether they are the same in every pass.
    """

    machine: Machine
    classes: int
    flags: list[Flag]
    notes: list[str]
    forward: Index
    backward: Index
    first: Tensor
    steady: bool

    def recognises(self, logits: Tensor) -> bool:
        """Whether ``logits`` of the first samples are this model's."""
        rows = min(len(logits), len(self.first))
        held = logits[:rows].to(self.first)
        return not self.steady or torch.allclose(held, self.first[:rows], rtol=1e-3, atol=1e-3)


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Use ``number`` threads inside (None leaves them as they are)."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def look(
    model: nn.Module, pool: Pool, threat: ThreatModel, suite: Suite, settings: Settings, device: torch.device
) -> Look:
    """Try the model on the first samples and make the machine that attacks it.

    Raises:
        ModelError: it raises, returns the wrong shape or NaN, or changes its own state.
        InvalidInput: labels beyond its classes.
    """
    # a copy, so that a model which changes its input changes nobody's images
    pair = pool.x[:2].clone().to(device)
    forward, backward = np.zeros(len(pool), np.int64), np.zeros(len(pool), np.int64)
    probe = Passes(model, None, len(pair))
    with _unchanged(model):
        with noted(model, pair) as shapes:
            together = probe.logits(pair, f"on the first {'two samples' if len(pair) > 1 else 'sample'}")
        probe.classes = together.shape[1]
        alone = probe.logits(pair[:1], "on the first sample alone") if len(pair) > 1 else together
        again, slope = _with_gradient(probe, pair, "on the first two samples, again")
    if not torch.equal(pair.cpu(), pool.x[:2]):
        raise ModelError(
            "the model's forward pass changes its input in place, so that no attack could know where it stands; "
            "let it work on a copy"
        )
    refuse_nan(together.cpu(), pool.names)
    forward[0] += 1
    forward[: len(pair)] += 2 if len(pair) > 1 else 1
    backward[: len(pair)] += slope is not None
    classes = together.shape[1]
    if classes < 2:
        raise ModelError(f"the model returns {classes} logit per sample: attacks need at least 2 classes")
    beyond = (pool.y >= classes).nonzero().squeeze(1)
    if len(beyond):
        row = int(beyond[0])
        raise InvalidInput(
            f"sample {int(pool.names[row])} has class {int(pool.y[row])}, "
            f"but the model knows {classes} (0 to {classes - 1})"
        )
    flags: list[Flag] = []
    random = _apart(together, again) > 1e-4
    if random and not suite.expects_random:
        flags.append(kinds.RANDOMISED())
    alike = _apart(together[:1], alone) <= 1e-3
    if not random and not alike:
        flags.append(kinds.BATCH_DEPENDENT())
    size = _batch_size(settings, pool, device)
    # what no module shows is taken to be as wide as the first layer of a network for CIFAR
    lanes = _lanes(max(shapes.widest, _WIDTH * pair[0].numel()), device)
    seen = _Seen(pair, together, slope, random, shapes)
    passes, notes = _fast(model, seen, settings, classes, size)
    forward[: len(pair)] += 1
    forward[0] += 1
    backward[: len(pair)] += slope is not None
    if device.type == "cuda" and settings.batch_size == "auto":
        passes.limit = size = _fastest_batch(passes, pool, size, device)
    if settings.compiled or settings.graphs:
        passes, notes = _static(passes, notes, seen, settings)
    judge = Judge(model, threat, classes=classes, limit=size)
    bundle = size
    # where images share more than a batch, or batches have a size of their own, they are passed as they are packed
    if device.type == "cpu" and (random or alike) and not settings.compiled:
        passes.portion = judge.passes.portion = lanes
        bundle = max(size, min(_BUNDLED * lanes, _MOST_BUNDLED // pool.x[0].numel()))
    machine = Machine(passes, judge, device, size, passes.forward_portion or lanes, bundle)
    return Look(machine, classes, flags, notes, forward, backward, together.cpu(), alike and not random)


def refuse_nan(logits: Tensor, names: Index) -> None:
    """Raise a `ModelError` that names the samples whose clean logits ``[n, k]`` are not finite."""
    bad = (~torch.isfinite(logits).all(dim=1)).nonzero().squeeze(1).tolist()
    if bad:
        shown = ", ".join(str(int(names[row])) for row in bad[:10]) + (", ..." if len(bad) > 10 else "")
        raise ModelError(
            f"the model returned NaN or infinite logits for {len(bad)} clean image{'s' if len(bad) > 1 else ''} "
            f"(sample {shown}): nothing can be said of such a model"
        )


def probabilities(logits: Tensor) -> bool:
    """Whether outputs ``[n, k]`` look like probabilities rather than logits."""
    inside = logits.min() > -1e-5 and logits.max() < 1 + 1e-5
    return bool(inside and ((logits.sum(dim=1) - 1).abs() < 1e-5).all())


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Raise a `ModelError` if the model's tensors are other ones afterwards, and put them back."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    yield
    changed = [name for name, value in model.state_dict().items() if not _same(value, before[name])]
    if changed:
        model.load_state_dict(before)
        shown = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
        raise ModelError(
            f"the model's forward pass changes its own state ({shown}), so that every verdict would depend on the "
            "passes before it; put all of its modules in eval mode: model.eval()"
        )


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all())


def _apart(a: Tensor, b: Tensor) -> float:
    """Largest distance between rows of ``a`` and ``b`` after scaling each to length one."""
    return float((F.normalize(a.double(), dim=1) - F.normalize(b.double(), dim=1)).norm(dim=1).max())


def _batch_size(settings: Settings, pool: Pool, device: torch.device) -> int:
    if settings.batch_size != "auto":
        return int(settings.batch_size)
    budget = (_GPU_BATCH if device.type == "cuda" else _CPU_BATCH) * _CIFAR
    return max(8, min(budget // max(1, pool.x[0].numel()), 1024))


def _lanes(widest: int, device: torch.device) -> int:
    """How many rows go through the model together at the lowest price a row.

    Args:
        widest: numbers that the widest layer returns for an image.
    """
    if device.type == "cuda":
        return _GPU_LANES
    fitting = _CPU_CACHE * torch.get_num_threads() // widest
    return max(_FEWEST_LANES, min(fitting, _MOST_LANES))


@dataclass(frozen=True)
class _Seen:
    """What the plain model said about the first samples: logits, gradient where it has one, shapes of its layers."""

    pair: Tensor
    logits: Tensor
    slope: Tensor | None
    random: bool
    shapes: Noted

    def agrees(self, passes: Passes, call: str) -> bool:
        """Whether other passes say the same, with and without a gradient, within what their precision allows."""
        logits, slope = _with_gradient(passes, self.pair, call)
        first = passes.logits(self.pair[:1], call)
        if (slope is None) != (self.slope is None):
            return False
        if self.random or slope is None or self.slope is None:
            return True
        # bfloat16 keeps 8 bits of a number; everything else must agree within float32 rounding
        tolerance, alike = {"bf16": (0.2, 0.5), "tf32": (1e-2, 0.9), "fp32": (1e-3, 0.9)}[passes.precision]
        scale = float(self.logits.abs().max().clamp(min=1))
        off = torch.cat([logits - self.logits, first - self.logits[:1]]).abs().max()
        # rounding may put a rectifier on its other side, so that gradients agree in direction only
        cosine = F.cosine_similarity(slope.flatten(1).double(), self.slope.flatten(1).double(), dim=1)
        flat = (self.slope.flatten(1).abs().amax(1) == 0) | (slope.flatten(1).abs().amax(1) == 0)
        return bool(off <= tolerance * scale) and bool(((cosine > alike) | flat).all())


def _with_gradient(passes: Passes, x: Tensor, call: str) -> tuple[Tensor, Tensor | None]:
    """Logits, and the gradient of their log-sum-exp where the model has gradients."""
    try:
        logits, _, slope = passes.gradient(x, lambda out, part: out.logsumexp(dim=1), call)
    except NoGradient:
        return passes.logits(x, call), None
    return logits, slope


def _fast(model: nn.Module, seen: _Seen, settings: Settings, classes: int, size: int) -> tuple[Passes, list[str]]:
    """Passes on an accelerated copy, or on the model itself if the copy says something else."""
    traceable = not seen.random and seen.slope is not None
    why, network = "", None
    for fused in (True, False):
        try:
            network, notes = accelerate(
                model, precision=settings.precision, traceable=traceable, seen=seen.shapes, fused=fused
            )
            images = seen.pair.dim() == 4
            layout = torch.channels_last if "channels_last" in notes and images else torch.contiguous_format
            passes = Passes(network, classes, size, settings.precision, layout)
            agreed, why = seen.agrees(passes, "on the first two samples, accelerated"), "disagreed with the plain model"
        except Exception as error:  # the model itself has just passed these images, so the copy is at fault
            agreed, why = False, f"failed: {error}"
        if agreed:
            passes.drain()
            return passes, notes
        if network is not None and not isinstance(network, Kernels):
            break  # without kernels it would be the same copy again
    return Passes(model, classes, size, settings.precision), [f"as-loaded (accelerated passes {why})"]


def _static(passes: Passes, notes: list[str], seen: _Seen, settings: Settings) -> tuple[Passes, list[str]]:
    """The same passes compiled or as CUDA graphs, in batches of a few sizes; as they were if that goes wrong."""
    network: nn.Module = passes.network
    if settings.compiled:
        network = torch.compile(network, dynamic=False)  # type: ignore[assignment]
    # torch.compile gives up on code that it has compiled for eight sizes, with and without gradients
    sizes = 4 if settings.compiled else 8
    network = Padded(network, largest=passes.limit, sizes=sizes, graphs=settings.graphs)
    fixed = Passes(network, passes.classes, passes.limit, passes.precision, passes.layout)
    added = [name for name, used in (("compile", settings.compiled), ("cuda-graphs", settings.graphs)) if used]
    try:
        agreed, why = seen.agrees(fixed, "on the first two samples, compiled"), "disagreed"
    except Exception as error:  # compilers and captures fail in ways of their own; the uncompiled passes remain
        agreed, why = False, f"failed: {type(error).__name__}"
    fixed.drain()
    return (fixed, notes + added) if agreed else (passes, [*notes, f"not {' or '.join(added)} ({why})"])


def _fastest_batch(passes: Passes, pool: Pool, start: int, device: torch.device) -> int:
    """Double the batch while that makes a GPU faster per sample; out of memory ends the search."""
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
