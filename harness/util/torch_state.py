"""What torch keeps globally and a caller may have changed: pinned while something is measured, then restored.

Under the caller's ``torch.no_grad()`` gradient attacks fail, under ``torch.autocast`` a model that is judged in
float32 answers in bfloat16, and a changed default dtype changes every constant. None of that may decide a verdict.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

__all__ = ["backward_runs_in_a_fork", "default_dtype", "float32_precision", "pinned", "threads"]


@contextmanager
def pinned(device: torch.device, *, dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """Gradients on, inference mode and autocast off, float32 as float32, tensors made on the CPU in ``dtype``.

    Args:
        device: where the model runs.
        dtype: of tensors that are made without one.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in sorted({"cpu", device.type}):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":  # costs time in every call of torch, so only where it is needed
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(float32_precision(device.type))
        stack.enter_context(default_dtype(dtype))
        yield


@contextmanager
def float32_precision(device_type: str, *, tf32: bool = False) -> Iterator[None]:
    """Multiply float32 numbers in full precision, or in TF32.

    Set by the precision flags that torch has since 2.9. The older ``allow_tf32`` flags raise once both kinds are used,
    so that nothing here reads them.

    Args:
        device_type: "cpu" or "cuda"; flags of the other are left alone.
    """
    wanted = "tf32" if tf32 else "ieee"
    changed: list[tuple[Any, str]] = []
    for flag in _precision_flags(device_type):
        before = flag.fp32_precision
        if before != wanted:
            changed.append((flag, before))
            flag.fp32_precision = wanted
    try:
        yield
    finally:
        for flag, before in changed:
            flag.fp32_precision = before


def _precision_flags(device_type: str) -> tuple[Any, ...]:
    backends: Any = torch.backends
    if device_type == "cuda":
        return (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    # a CPU may multiply float32 numbers in bfloat16 after torch.set_float32_matmul_precision("medium")
    return (backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Tensors that are made without a dtype have ``dtype``."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Use ``number`` threads (None leaves them as they are)."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def backward_runs_in_a_fork() -> bool:
    """Whether a forked process could make backward passes: not once torch has begun threads of its own here, as
    torch.compile and torch.export do, and on a machine with a GPU any backward pass."""
    if not torch.cuda.is_available():
        _backward()  # begins the threads that the first backward pass of an attack would begin
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _backward()
            code = 0
        finally:
            # nothing of what the parent has open may be flushed or tidied up here
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def _backward() -> None:
    with torch.enable_grad(), torch.inference_mode(False):
        torch.ones(1, requires_grad=True).sum().backward()  # type: ignore[no-untyped-call]
