"""The attacked model, made faster without becoming another model.

Attacks spend nearly all their time in passes through a network whose weights do not change. So the
parameters are frozen (no gradient is kept for them), batch norms that follow a convolution are folded
into it, batch norms that feed an activation are merged with it, the memory layout is the one
convolutions like, what follows a convolution is fused with it, and, where asked, passes run in reduced precision.

All of this happens on a copy. Its outputs are compared with the plain model's before it is used, and the
judge never sees it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import fx, nn

from harness.backends._bf16 import Autocast, convolve_in_bf16
from harness.backends._copy import copied
from harness.backends._fold import fold
from harness.backends._graph import is_pure, wiring
from harness.backends._kernels import Kernels, have_kernels
from harness.backends._shapes import Noted, Shapes, noted, output_shapes, settle_sizes
from harness.backends._sweep import sweep
from harness.errors import InvalidInput
from harness.util import choices

__all__ = ["PRECISIONS", "Kernels", "Noted", "accelerate", "full_float32", "noted", "require_precision"]

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
    if precision == "bf16" and device.type == "cpu" and not _cpu_has_bf16():
        raise InvalidInput("precision bf16 needs a CPU with AVX512-BF16 or AMX, which this one lacks; use fp32")


def _cpu_has_bf16() -> bool:
    capabilities = torch.backends.cpu.get_cpu_capability()
    mkldnn = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return "AVX512" in capabilities and (mkldnn is None or bool(mkldnn()))


@contextmanager
def full_float32(precision: str = "fp32") -> Iterator[None]:
    """Within it, float32 on a GPU means float32 (no TF32), unless ``precision`` asks for tf32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    wanted = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = wanted
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def accelerate(
    model: nn.Module,
    *,
    precision: str,
    traceable: bool = True,
    seen: Noted | None = None,
    fused: bool = True,
) -> tuple[nn.Module, list[str]]:
    """A faster copy of ``model`` for attacks, and what was done to it in plain words.

    Args:
        model: in eval mode, on its device.
        precision: fp32, tf32 or bf16.
        traceable: False keeps the model's own Python in charge: a traced graph would repeat one random draw,
            and give gradients to a model that has none.
        seen: what its modules return; where it is not given, sums are not made in place, nor kernels fused.
        fused: fuse kernels where that is possible.
    """
    notes: list[str] = []
    try:
        fast = copied(model)
    except Exception as error:  # a model may hold anything, and then it is attacked as it is
        return model, [f"as-loaded (the model cannot be copied: {type(error).__name__})"]
    notes.append("frozen")
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    graph, pure = wiring(fast), False
    shapes: Shapes = {}
    if graph is not None:
        folded = fold(fast, graph)
        notes += [f"folded-bn:{folded}"] if folded else []
        pure = traceable and is_pure(fast, graph)
        if pure:
            if seen is not None:
                shapes = output_shapes(fast, graph, seen)
                settle_sizes(graph, shapes, seen.images[0])
            swept = sweep(fast, graph, shapes, affine=on_cpu)
            notes += [f"merged-activation:{swept}"] if swept else []
    channels_last = any(isinstance(module, nn.Conv2d) and module.in_channels > 1 for module in fast.modules())
    notes += ["channels_last"] if channels_last else []
    cast = pure and on_cpu
    if precision == "bf16":
        convolve_in_bf16(fast, cast=cast)
        notes.append("bf16-convolutions" if cast else "bf16-autocast")
    if graph is not None and cast and fused and shapes and have_kernels(fast):
        kernels = Kernels(fast, graph, shapes)
        if kernels.pays:
            return kernels, [*notes, f"fused-convolutions:{kernels.fused}"]
    if channels_last:
        fast = fast.to(memory_format=torch.channels_last)
    if graph is not None and pure:
        fast = fx.GraphModule(fast, graph)
    return (fast if cast or precision != "bf16" else Autocast(fast)), notes
