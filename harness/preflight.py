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

from harness.accelerate import accelerate, full_float32
from harness.engine import Index, Machine, Pool
from harness.errors import InvalidInput, ModelError
from harness.judge import Judge
from harness.passes import Padded, Passes
from harness.settings import Settings
from harness.suites import Suite
from harness.threat import ThreatModel

__all__ = ["Look", "look", "probabilities", "refuse_nan", "threads"]

_CPU_BATCH, _GPU_BATCH = 128, 512
_CPU_LANES, _GPU_LANES = 64, 512
_CIFAR = 3 * 32 * 32


@dataclass(frozen=True)
class Look:
    """What was seen, and the machine that was built on it.

    Attributes:
        classes: number of logits. flags: doubts. notes: how passes were made fast.
        forward, backward: int64 ``[n]`` passes spent on looking.
    """

    machine: Machine
    classes: int
    flags: list[str]
    notes: list[str]
    forward: Index
    backward: Index


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
    pair = pool.x[:2].to(device)
    forward, backward = np.zeros(len(pool), np.int64), np.zeros(len(pool), np.int64)
    probe = Passes(model, None, len(pair))
    with _unchanged(model), full_float32():
        alone = probe.logits(pair[:1], "on the first sample")
        probe.classes = alone.shape[1]
        together = probe.logits(pair, "on the first two samples") if len(pair) > 1 else alone
        again = probe.logits(pair, "on the first two samples, again")
    refuse_nan(together.cpu(), pool.names)
    forward[0] += 1
    forward[: len(pair)] += 2 if len(pair) > 1 else 1
    classes = alone.shape[1]
    if classes < 2:
        raise ModelError(f"the model returns {classes} logit per sample: attacks need at least 2 classes")
    beyond = (pool.y >= classes).nonzero().squeeze(1)
    if len(beyond):
        row = int(beyond[0])
        raise InvalidInput(
            f"sample {int(pool.names[row])} has class {int(pool.y[row])}, "
            f"but the model knows {classes} (0 to {classes - 1})"
        )
    flags = []
    random = _apart(together, again) > 1e-4
    if random and not suite.expects_random:
        flags.append("the model is randomised (two passes of the same images differ): use --suite autoattack-rand")
    if not random and _apart(together[:1], alone) > 1e-3:
        flags.append(
            "the model's output depends on the rest of the batch, so that no verdict is that of an image alone"
        )
    size = _batch_size(settings, pool, device)
    lanes = _GPU_LANES if device.type == "cuda" else _CPU_LANES
    judge = Judge(model, threat, classes=classes, limit=size)
    passes, notes = _fast(model, pair, together, settings, classes, size, random)
    forward[: len(pair)] += 1
    if device.type == "cuda" and settings.batch_size == "auto":
        passes.limit = size = _fastest_batch(passes, pool, size, device)
    machine = Machine(passes, judge, device, size, min(lanes, size))
    return Look(machine, classes, flags, notes, forward, backward)


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


def _fast(
    model: nn.Module,
    pair: Tensor,
    expected: Tensor,
    settings: Settings,
    classes: int,
    size: int,
    random: bool,
) -> tuple[Passes, list[str]]:
    """Passes on an accelerated copy, or on the model itself if the copy says something else."""
    network, notes = accelerate(
        model, precision=settings.precision, compiled=settings.compiled, deterministic=not random
    )
    graphs = settings.graphs and pair.device.type == "cuda"
    if graphs or settings.compiled:
        # torch.compile gives up on code that it has compiled for eight sizes, with and without gradients
        network = Padded(network, largest=size, sizes=8 if graphs and not settings.compiled else 4, graphs=graphs)
        notes.append("cuda-graphs" if graphs else "padded")
    layout = torch.channels_last if "channels_last" in notes and pair.dim() == 4 else torch.contiguous_format
    passes = Passes(network, classes, size, settings.precision, layout)
    try:
        got = passes.logits(pair, "on the first two samples, accelerated")
    except ModelError as error:
        plain = Passes(model, classes, size, settings.precision)
        return plain, [f"as-loaded (accelerated passes failed: {error})"]
    # bfloat16 keeps 8 bits of a number; everything else must agree within float32 rounding
    tolerance = 0.2 if settings.precision == "bf16" else 1e-2 if settings.precision == "tf32" else 1e-3
    scale = float(expected.abs().max().clamp(min=1))
    if not random and float((got - expected).abs().max()) > tolerance * scale:
        return Passes(model, classes, size), ["as-loaded (accelerated passes disagreed with the plain model)"]
    passes.drain()
    return passes, notes


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
            passes.gradient(batch, lambda logits: logits[:, 0], "while looking for the batch size")
            rates.append(size / max(passes.drain(), 1e-9))
        if passes.retreats > before or rates[-1] < 1.05 * best_rate:
            break
        best, best_rate, size = size, rates[-1], 2 * size
    return min(best, max(8, len(pool)))
