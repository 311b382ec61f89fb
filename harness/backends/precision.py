"""Which number formats passes may use, and how float32 is kept float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from harness.errors import InvalidInput
from harness.util import choices
from harness.util.torch_state import float32_precision

__all__ = ["PRECISIONS", "full_float32", "require_precision", "to_try"]

PRECISIONS = choices.names(choices.Precision)


def require_precision(precision: str, device: torch.device) -> None:
    """Check that the device can run passes in ``precision``.

    Raises:
        InvalidInput: an unknown precision, or one that this device lacks.
    """
    if precision not in PRECISIONS:
        raise InvalidInput(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision == "tf32" and device.type != "cuda":
        raise InvalidInput("precision tf32 exists on NVIDIA GPUs only; on this device use fp32 or bf16")
    if precision == "bf16" and device.type == "cpu" and "AVX512" not in torch.backends.cpu.get_cpu_capability():
        raise InvalidInput("precision bf16 needs a CPU with AVX-512, which this one lacks; use fp32")


def to_try(precision: str, device: torch.device) -> tuple[str, ...]:
    """The number formats in which copies of a model are tried, the preferred first; float32 is always one of them."""
    if precision == "auto":
        return ("tf32", "fp32") if device.type == "cuda" else ("fp32",)
    return tuple(dict.fromkeys((precision, "fp32")))


@contextmanager
def full_float32(precision: str = "fp32") -> Iterator[None]:
    """Within it, float32 on a GPU means float32 (no TF32), unless ``precision`` asks for tf32."""
    on_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # a CPU has no TF32
    with float32_precision("cuda", tf32=precision == "tf32") if on_gpu else nullcontext():
        yield
