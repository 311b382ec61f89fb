"""Model passes: timed, counted per sample, split where memory is short, and checked.

`Passes` is what the engine gives its attacks to look through (an `Oracle`, one chunk at a time). The
model's misbehaviour surfaces here and nowhere else, as a `ModelError` that names call and sample.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.attacks import Oracle
from harness.attacks._base import Loss
from harness.audit.model import CHANGES_INPUT
from harness.backends.precision import full_float32
from harness.errors import ModelError, NoGradient
from harness.util.text import counted
from harness.util.user_file import one_line

__all__ = ["ChunkOracle", "Passes", "Tally", "checked_logits", "mended", "out_of_memory"]

_CHANNELS = (1, 3)
"""What images mostly have, by which those that have their channels last are told."""

_BESIDE = 1e-6
"""How far beside a pixel its gradient is taken where it is not finite at the pixel itself."""


@dataclass
class Tally:
    """What a step has cost so far, per sample of the pool.

    Attributes:
        forward, backward: int64 ``[n]`` passes of each sample; a forward with its backward counts as one
            forward and one backward.
        flat: bool ``[n]`` samples whose gradient was exactly zero at some point.
        mended: bool ``[n]`` samples whose gradient was NaN or infinite in some entries, which were taken from a point
            1e-6 beside, or as zero.
        model_seconds: time inside the model.
    """

    forward: np.ndarray[tuple[int], np.dtype[np.int64]]
    backward: np.ndarray[tuple[int], np.dtype[np.int64]]
    flat: np.ndarray[tuple[int], np.dtype[np.bool_]]
    mended: np.ndarray[tuple[int], np.dtype[np.bool_]]
    model_seconds: float = 0.0

    @classmethod
    def empty(cls, n: int) -> Tally:
        return cls(np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.bool_), np.zeros(n, np.bool_))

    def add(self, other: Tally) -> None:
        self.forward += other.forward
        self.backward += other.backward
        self.flat |= other.flat
        self.mended |= other.mended
        self.model_seconds += other.model_seconds


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out, and nothing else."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator: can't allocate memory" in text or "DefaultCPUAllocator: not enough memory" in text
    )


def checked_logits(logits: object, n: int, classes: int | None, call: str) -> Tensor:
    """``logits`` if they are a float tensor ``[n, classes]``.

    Raises:
        ModelError: anything else came out of the model.
    """
    if not isinstance(logits, Tensor):
        raise ModelError(f"{call}: expected a tensor of logits, the model returned {type(logits).__name__}")
    if logits.dim() != 2 or logits.shape[0] != n or (classes is not None and logits.shape[1] != classes):
        wanted = f"[{n}, {classes or 'classes'}]"
        hint = "; does its forward squeeze a batch of one?" if n == 1 and logits.dim() == 1 else ""
        raise ModelError(f"{call}: expected logits of shape {wanted}, the model returned {list(logits.shape)}{hint}")
    if not logits.is_floating_point():
        raise ModelError(f"{call}: expected floating-point logits, the model returned {logits.dtype}")
    return logits


@dataclass
class Passes:
    """Timed passes through the attacked model.

    Args:
        network: from images ``[m, ...]`` in [0, 1] to logits.
        classes: how many logits it returns; None where that is to be found out.
        limit: the largest batch that goes through at once; halved when memory runs out.
        precision: fp32, tf32 or bf16.
        layout: the memory format that the network likes.
        scale: what logits are multiplied by, where losses in float32 cannot work with them as they are.
        micro_batch: the number of rows at which a row costs least; larger batches go through in equal parts, without a
            backward pass in parts of up to `forward_micro_batch`. None where more rows never cost more.
        fewest: smaller batches are filled up with zeros to so many rows, but never beyond ``limit``, because
            libraries may round otherwise where there are few rows (see `harness.backends.rounding`).
    """

    network: nn.Module
    classes: int | None
    limit: int
    precision: str = "fp32"
    layout: torch.memory_format = torch.contiguous_format
    micro_batch: int | None = None
    fewest: int = 1
    scale: float = 1.0
    seconds: float = 0.0
    retreats: int = 0
    _events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = field(default_factory=list, repr=False)

    @property
    def forward_micro_batch(self) -> int | None:
        """`micro_batch` of passes without a backward pass, which keep less in memory."""
        return None if self.micro_batch is None else self.micro_batch * 7 // 6

    def logits(self, x: Tensor, call: str) -> Tensor:
        """Forward passes: ``[m, ...] -> [m, classes]``."""
        with torch.no_grad():
            return self._split(x, lambda part: (self._call(x[part], call),), self.forward_micro_batch)[0]

    def gradient(self, x: Tensor, loss: Loss, call: str) -> tuple[Tensor, Tensor, Tensor]:
        """Forward and backward passes: logits ``[m, classes]``, loss ``[m]``, gradient ``[m, ...]``."""

        def one(part: slice) -> tuple[Tensor, ...]:
            leaf, logits, values = self._graph(x, part, loss, call)
            return logits.detach(), values.detach(), _own(_backward(values.sum(), leaf, call))

        logits, values, grad = self._split(x, one, self.micro_batch)
        return logits, values, grad

    def gradients(self, x: Tensor, losses: Loss, call: str) -> tuple[Tensor, Tensor, Tensor]:
        """One forward and ``j`` backward passes: logits, losses ``[m, j]``, gradients ``[m, j, ...]``."""

        def one(part: slice) -> tuple[Tensor, ...]:
            leaf, logits, values = self._graph(x, part, losses, call)
            last = values.shape[1] - 1
            grads = [_own(_backward(values[:, j].sum(), leaf, call, again=j < last)) for j in range(values.shape[1])]
            return logits.detach(), values.detach(), torch.stack(grads, dim=1)

        logits, values, grads = self._split(x, one, self.micro_batch)
        return logits, values, grads

    def drain(self) -> float:
        """Seconds spent in the model since the last call (waits for the device)."""
        if self._events:
            torch.cuda.synchronize()
            self.seconds += sum(start.elapsed_time(end) for start, end in self._events) / 1000
            self._events.clear()
        spent, self.seconds = self.seconds, 0.0
        return spent

    def _graph(self, x: Tensor, part: slice, loss: Loss, call: str) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            leaf = x[part].detach().requires_grad_()
            logits = self._call(leaf, call)
            if not logits.requires_grad:
                raise NoGradient(_NO_GRADIENT.format(call=call))
            values = loss(logits, part)
        return leaf, logits, values

    def _call(self, x: Tensor, call: str) -> Tensor:
        rows, missing = len(x), min(self.fewest, self.limit) - len(x)
        if missing > 0:
            x = F.pad(x, (0, 0) * (x.dim() - 1) + (0, missing))
        x = x if self.layout is torch.contiguous_format else x.contiguous(memory_format=self.layout)
        try:
            logits = self.network(x)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            # torch's words for an operation in place on what gradients are taken of, or on a view of it
            in_place = "leaf Variable that requires grad is being used in an in-place" in str(error) and x.is_leaf
            raise ModelError(CHANGES_INPUT if in_place else _raised(call, x, error)) from error
        except Exception as error:  # whatever a user's forward raises is reported with the call that made it
            raise ModelError(_raised(call, x, error)) from error
        logits = checked_logits(logits, x.shape[0], self.classes, call).to(x.dtype)[:rows]
        return logits if self.scale == 1 else logits * self.scale

    def _split(
        self, x: Tensor, one: Callable[[slice], tuple[Tensor, ...]], micro_batch: int | None
    ) -> tuple[Tensor, ...]:
        done: list[tuple[Tensor, ...]] = []
        begin = 0
        while begin < len(x):
            most, left = min(self.limit, micro_batch or self.limit), len(x) - begin
            part = slice(begin, begin + -(-left // -(-left // most)))
            try:
                done.append(self._timed(x, one, part))
            except RuntimeError as error:
                if not out_of_memory(error) or part.stop - part.start == 1:
                    raise
                self._retreat(part.stop - part.start)
                continue
            begin = part.stop
        return done[0] if len(done) == 1 else tuple(torch.cat(parts) for parts in zip(*done, strict=True))

    def _timed(self, x: Tensor, one: Callable[[slice], tuple[Tensor, ...]], part: slice) -> tuple[Tensor, ...]:
        if x.device.type != "cuda":
            began = time.perf_counter()
            out = one(part)
            self.seconds += time.perf_counter() - began
            return out
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        # backward passes as well: they run where the gradient is asked for, not where the graph was made
        with full_float32(self.precision):
            out = one(part)
        end.record()
        self._events.append((start, end))
        return out

    def _retreat(self, size: int) -> None:
        self.limit = max(1, size // 2)
        self.retreats += 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


_NO_GRADIENT = (
    "{call}: the model's output has no gradient with respect to its input (detached or under no_grad), so gradient "
    "attacks cannot run; evaluate it with --suite square"
)


def mended(gradient: Tensor) -> tuple[Tensor, Tensor | None]:
    """A gradient ``[m, ...]`` with zeros in the place of entries that are not finite, and the rows that had some.

    A square root, a norm or a logarithm at zero makes a gradient NaN where the loss is finite; one such entry would
    spoil the step of a whole image. The rows are None where there is nothing to mend.
    """
    rows = gradient.flatten(1)
    if math.isfinite(float(rows.sum())):  # one value to wait for; a sum may also overflow
        return gradient, None
    bad = ~torch.isfinite(rows).all(dim=1)
    return (gradient.nan_to_num(0.0, 0.0, 0.0), bad) if bool(bad.any()) else (gradient, None)


def _backward(value: Tensor, leaf: Tensor, call: str, *, again: bool = False) -> Tensor:
    """The gradient of a scalar.

    Args:
        again: another backward pass through the same graph follows.

    Raises:
        NoGradient: the backward pass fails, or does not reach the images.
    """
    try:
        (grad,) = torch.autograd.grad(value, leaf, retain_graph=again, allow_unused=True)
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        raise NoGradient(
            f"{call}: the model's backward pass raised {one_line(error)}; gradient attacks cannot run, evaluate it "
            "with --suite square"
        ) from error
    if grad is None:
        raise NoGradient(_NO_GRADIENT.format(call=call))
    return grad


def _own(grad: Tensor) -> Tensor:
    """A gradient in memory of its own: that of a CUDA graph is overwritten by the next replay."""
    return grad.clone(memory_format=torch.contiguous_format) if grad.is_cuda else grad.contiguous()


def _raised(call: str, x: Tensor, error: BaseException) -> str:
    reason = str(error).strip().splitlines()
    last = x.dim() == 4 and x.shape[3] in _CHANNELS and x.shape[1] not in _CHANNELS
    return (
        f"{call}: the model raised {type(error).__name__} on a batch of shape {list(x.shape)} "
        f"({x.dtype}, {x.device}): {reason[0] if reason else 'no message'}"
        f"{'; images are [n, C, H, W]: give x.transpose(0, 3, 1, 2) of an array [n, H, W, C]' if last else ''}"
    )


class ChunkOracle(Oracle):
    """What an attack sees of the model: passes on one chunk of the pool, put on the samples' account by `settle`.

    Args:
        passes: the attacked model.
        index: int64 ``[m]`` on the CPU: the pool's row of each row of the chunk.
        names: what to call the pool's rows in an error (positions in the data set).
        micro_batch: see `Oracle`.
        device: where the rows lie.
    """

    def __init__(
        self,
        passes: Passes,
        index: Tensor,
        tally: Tally,
        step: str,
        names: np.ndarray[Any, Any],
        *,
        micro_batch: int,
        device: torch.device,
    ) -> None:
        self.micro_batch = micro_batch
        self._passes = passes
        self._index = index.numpy()
        self._tally = tally
        self._names = names
        self._call = f"in step {step}"
        # passes of all rows, and of each; numpy takes long to count what may occur twice, and a GPU is not waited for
        self._whole = [0, 0]
        self._forward, self._backward = torch.zeros((2, len(index)), dtype=torch.int64, device=device)
        self._one = torch.ones(1, dtype=torch.int64, device=device)
        self._last: tuple[Tensor, Tensor | None] | None = None

    def logits(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        logits = self._passes.logits(x, self._call)
        self._charge(x, rows, 0)
        self._refuse_nan(logits, rows)
        return logits

    def gradient(self, x: Tensor, loss: Loss, rows: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        logits, values, grad = self._passes.gradient(x, loss, self._call)
        self._charge(x, rows, 1)
        self._refuse_nan(logits, rows)

        def again(points: Tensor) -> Tensor:
            return self._passes.gradient(points, loss, self._call)[2]

        return logits, values, self._noted(grad, x, rows, 1, again)

    def gradients(self, x: Tensor, losses: Loss, rows: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        logits, values, grads = self._passes.gradients(x, losses, self._call)
        self._charge(x, rows, values.shape[1])
        self._refuse_nan(logits, rows)

        def again(points: Tensor) -> Tensor:
            return self._passes.gradients(points, losses, self._call)[2]

        return logits, values, self._noted(grads, x, rows, values.shape[1], again)

    def last_points(self, wanted: set[int]) -> dict[int, Tensor]:
        """Of the pool's rows that are ``wanted`` and were in the last pass, the point that they had there."""
        if self._last is None:
            return {}
        x, rows = self._last
        return {row: x[place].cpu().clone() for place, row in enumerate(self._owners(rows).tolist()) if row in wanted}

    def settle(self) -> None:
        """Bring the tally up to date."""
        spent = (self._tally.forward, self._forward), (self._tally.backward, self._backward)
        for (total, of_each), of_all in zip(spent, self._whole, strict=True):
            np.add.at(total, self._index, of_each.cpu().numpy() + of_all)
            of_each.zero_()
        self._whole = [0, 0]

    def _charge(self, x: Tensor, rows: Tensor | None, backward: int) -> None:
        self._last = x, rows
        if rows is None:
            self._whole[0] += 1
            self._whole[1] += backward
            return
        ones = self._one.expand(len(rows))
        self._forward.index_add_(0, rows, ones)
        if backward:
            self._backward.index_add_(0, rows, ones, alpha=backward)

    def _owners(self, rows: Tensor | None) -> np.ndarray[Any, Any]:
        return self._index if rows is None else self._index[rows.cpu().numpy()]

    def _refuse_nan(self, logits: Tensor, rows: Tensor | None) -> None:
        # one value to look at, so that a GPU is waited for once; the sum is not finite if any logit is not
        if not math.isfinite(float(logits.sum())):
            bad = ~torch.isfinite(logits).all(dim=1).cpu().numpy()
            if bad.any():
                named = sorted({int(self._names[row]) for row in self._owners(rows)[bad]})
                raise ModelError(
                    f"{self._call}: the model returned NaN or infinite logits for {_listed(named)} at points inside "
                    "the threat model; a verdict on such a model means nothing"
                )

    def _noted(
        self, grad: Tensor, x: Tensor, rows: Tensor | None, backward: int, again: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The gradient, mended; samples whose gradient is mended or zero are noted.

        Args:
            backward: how many backward passes it took. again: makes them at other points.
        """
        sums = grad.flatten(1).sum(dim=1)
        # sums take one sweep, and are hardly ever zero or infinite for another reason
        if bool(((sums != 0) & torch.isfinite(sums)).all()):
            return grad
        zeroed, bad = mended(grad)
        if bad is not None:
            self._tally.mended[self._owners(rows)[bad.cpu().numpy()]] = True
            missing = ~torch.isfinite(grad)
            moved = missing.flatten(1, grad.dim() - x.dim()).any(dim=1) if grad.dim() > x.dim() else missing
            inwards = torch.where(x < 0.5, _BESIDE, -_BESIDE)
            beside = again(torch.where(moved, x + inwards, x))
            last = self._last
            self._charge(x, rows, backward)
            self._last = last
            zeroed = torch.where(missing, beside.nan_to_num(0.0, 0.0, 0.0), zeroed)
        flat = zeroed.flatten(1).abs().amax(dim=1) == 0
        self._tally.flat[self._owners(rows)[flat.cpu().numpy()]] = True
        return zeroed


def _listed(samples: list[int]) -> str:
    shown = ", ".join(map(str, samples[:10])) + (", ..." if len(samples) > 10 else "")
    return f"sample {shown}" if len(samples) == 1 else f"{counted(len(samples), 'sample')} ({shown})"
