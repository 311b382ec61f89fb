"""The attacked model, made faster without becoming another model.

Attacks spend nearly all their time in passes through a network whose weights do not change. So the
parameters are frozen (no gradient is kept for them), batch norms that follow a convolution are folded
into it, batch norms that feed an activation are merged with it, the memory layout is the one
convolutions like, and, where asked, passes run in reduced precision, compiled, or as CUDA graphs.

All of this happens on a copy. Its outputs are compared with the plain model's before it is used, and the
judge never sees it.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from harness.errors import InvalidInput

__all__ = ["PRECISIONS", "accelerate", "full_float32", "require_precision"]

PRECISIONS = ("fp32", "tf32", "bf16")

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


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


def accelerate(model: nn.Module, *, precision: str, compiled: bool = False) -> tuple[nn.Module, list[str]]:
    """A faster copy of ``model`` for attacks, and what was done to it in plain words.

    Args:
        model: in eval mode, on its device.
        precision: fp32, tf32 or bf16.
        compiled: pass the copy through torch.compile.
    """
    notes: list[str] = []
    try:
        fast = copy.deepcopy(model)
    except Exception as error:  # a model may hold anything, and then it is attacked as it is
        return model, [f"as-loaded (the model cannot be copied: {type(error).__name__})"]
    fast.requires_grad_(False)
    notes.append("frozen")
    folded, merged = _simplify(fast, merge=precision != "bf16" and _on_cpu(fast))
    if folded:
        notes.append(f"folded-bn:{folded}")
    if merged:
        notes.append(f"merged-activation:{merged}")
    if any(isinstance(module, nn.Conv2d) and module.in_channels > 1 for module in fast.modules()):
        fast = fast.to(memory_format=torch.channels_last)
        notes.append("channels_last")
    if precision == "bf16":
        fast = _Bf16(fast)
        notes.append("bf16-autocast")
    if compiled:
        fast = torch.compile(fast, dynamic=False)  # type: ignore[assignment]
        notes.append("compile")
    return fast, notes


def _on_cpu(model: nn.Module) -> bool:
    return all(parameter.device.type == "cpu" for parameter in model.parameters())


def _simplify(model: nn.Module, *, merge: bool) -> tuple[int, int]:
    """Fold and merge batch norms of ``model`` in place; returns how many of each.

    The graph that fx traces only tells which module feeds which. The model's own Python runs
    as before, with some modules replaced, so that a forward that fx would freeze (a random draw, say)
    stays what it is.
    """
    try:
        graph = fx.Tracer().trace(model)
    except Exception:  # data-dependent control flow: nothing is known of the wiring, so nothing is moved
        return 0, 0
    modules = dict(model.named_modules())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")

    def once(node: Any, kinds: tuple[type[nn.Module], ...]) -> bool:
        return (
            isinstance(node, fx.Node)
            and node.op == "call_module"
            and calls[node.target] == 1
            and type(modules[str(node.target)]) in kinds
        )

    folded = merged = 0
    for node in graph.nodes:
        if not once(node, _BATCH_NORMS) or not _constant(modules[str(node.target)]):
            continue
        norm: Any = modules[str(node.target)]
        source = node.args[0] if node.args else None
        following = next(iter(node.users)) if len(node.users) == 1 else None
        if once(source, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and len(source.users) == 1:  # type: ignore[union-attr]
            convolution: Any = modules[str(source.target)]  # type: ignore[union-attr]
            if convolution.training or norm.weight is None:
                continue
            _replace(model, str(source.target), fuse_conv_bn_eval(convolution, norm).requires_grad_(False))  # type: ignore[union-attr]
            _replace(model, str(node.target), nn.Identity())
            folded += 1
        elif merge and following is not None and once(following, (nn.ReLU, nn.LeakyReLU)):
            activation = modules[str(following.target)]
            slope = float(getattr(activation, "negative_slope", 0.0))
            if slope < 0:
                continue
            _replace(model, str(node.target), _AffineActivation(norm, slope))
            _replace(model, str(following.target), nn.Identity())
            merged += 1
    return folded, merged


def _constant(norm: Any) -> bool:
    """Whether a batch norm is a fixed affine map: eval mode, with running statistics."""
    return not norm.training and norm.running_mean is not None and norm.running_var is not None


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(operator.attrgetter(parent)(model) if parent else model, leaf, module)


class _AffineActivation(nn.Module):
    """A batch norm in eval mode and the (leaky) ReLU after it, in one sweep over memory each way."""

    def __init__(self, norm: Any, slope: float) -> None:
        super().__init__()
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = scale if norm.weight is None else norm.weight * scale
        shift = -norm.running_mean * scale
        shift = shift if norm.bias is None else norm.bias + shift
        dims = (1, -1) + (1,) * {nn.BatchNorm1d: 0, nn.BatchNorm2d: 2, nn.BatchNorm3d: 3}[type(norm)]
        self.register_buffer("scale", scale.detach().reshape(dims))
        self.register_buffer("shift", shift.detach().reshape(dims))
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _AffineActivationFunction.apply(x, self.scale, self.shift, self.slope)
        return out


class _AffineActivationFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, slope: float) -> Tensor:
        out = F.leaky_relu_(torch.addcmul(shift, x, scale), slope)
        ctx.save_for_backward(out, scale)
        ctx.slope = slope
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        # the output has the sign of the activation's input, so the output is all that is kept
        out, scale = ctx.saved_tensors
        back = torch.ops.aten.leaky_relu_backward(grad, out, ctx.slope, True).mul_(scale)
        return back, None, None, None


class _Bf16(nn.Module):
    """Runs convolutions in bfloat16, and linear layers, whose outputs attacks compare, in float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        for module in model.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                module.to(torch.bfloat16)  # cast once here rather than in every pass
            elif isinstance(module, nn.Linear):
                module.forward = _in_float32(module)  # type: ignore[method-assign]

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16, cache_enabled=False):
            logits: Tensor = self.model(x)
        return logits.float()


def _in_float32(layer: nn.Linear) -> Any:
    def forward(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), layer.weight, layer.bias)

    return forward
