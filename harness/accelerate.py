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
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

# what is known to be a function of its input alone in eval mode, so that a traced graph says it all
_PURE_MODULES = {
    *_BATCH_NORMS,
    *_CONVOLUTIONS,
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softplus),
    *(nn.Linear, nn.Flatten, nn.Identity, nn.Dropout, nn.GroupNorm, nn.LayerNorm),
    *(nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d),
}
_PURE_FUNCTIONS = {
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.neg, operator.getitem),
    *(getattr, torch.flatten, torch.cat, torch.relu, torch.tanh, torch.sigmoid),
    *(F.relu, F.leaky_relu, F.silu, F.gelu, F.pad, F.avg_pool2d, F.max_pool2d, F.adaptive_avg_pool2d),
}
_PURE_METHODS = {"mean", "sum", "view", "flatten", "reshape", "size", "contiguous", "relu", "tanh", "squeeze"}


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


def accelerate(model: nn.Module, *, precision: str, traceable: bool = True) -> tuple[nn.Module, list[str]]:
    """A faster copy of ``model`` for attacks, and what was done to it in plain words.

    Args:
        model: in eval mode, on its device.
        precision: fp32, tf32 or bf16.
        traceable: False keeps the model's own Python in charge: a traced graph would repeat one random draw,
            and give gradients to a model that has none.
    """
    notes: list[str] = []
    try:
        fast = copy.deepcopy(model)
    except Exception as error:  # a model may hold anything, and then it is attacked as it is
        return model, [f"as-loaded (the model cannot be copied: {type(error).__name__})"]
    fast.requires_grad_(False)
    notes.append("frozen")
    graph = _wiring(fast)
    if graph is not None:
        folded = _fold(fast, graph)
        notes += [f"folded-bn:{folded}"] if folded else []
        if traceable and _pure(fast, graph):
            fast, swept = _sweep(fast, graph, affine=precision != "bf16" and _on_cpu(fast))
            notes += [f"merged-activation:{swept}"] if swept else []
    if any(isinstance(module, nn.Conv2d) and module.in_channels > 1 for module in fast.modules()):
        fast = fast.to(memory_format=torch.channels_last)
        notes.append("channels_last")
    if precision == "bf16":
        fast = _Bf16(fast)
        notes.append("bf16-autocast")
    return fast, notes


def _on_cpu(model: nn.Module) -> bool:
    return all(parameter.device.type == "cpu" for parameter in model.parameters())


def _wiring(model: nn.Module) -> fx.Graph | None:
    """Which module and function feeds which, or None where Python decides that from the data."""
    try:
        return fx.Tracer().trace(model)
    except Exception:  # tracing runs the user's code on placeholders, which may fail in any way
        return None


class _Calls:
    """The modules of a traced model, and which nodes call one that is called nowhere else."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        self.modules: dict[str, Any] = dict(model.named_modules())
        self.counts = Counter(node.target for node in graph.nodes if node.op == "call_module")

    def module(self, node: Any, kinds: tuple[type[nn.Module], ...]) -> Any:
        """The module that ``node`` alone calls, if it is exactly of one of ``kinds``; else None."""
        if not isinstance(node, fx.Node) or node.op != "call_module" or self.counts[node.target] != 1:
            return None
        module = self.modules[str(node.target)]
        return module if type(module) in kinds else None


def _fold(model: nn.Module, graph: fx.Graph) -> int:
    """Fold batch norms into the convolutions before them, in place; returns how many.

    The graph only tells what feeds what. The model's own Python runs as before, so that a forward
    that tracing would freeze (a random draw, say) stays what it is.
    """
    calls, folded = _Calls(model, graph), 0
    for node in graph.nodes:
        norm = calls.module(node, _BATCH_NORMS)
        source = node.args[0] if norm is not None and node.args else None
        convolution = calls.module(source, _CONVOLUTIONS)
        if not isinstance(source, fx.Node) or convolution is None or len(source.users) != 1:
            continue
        if not _constant(norm) or norm.weight is None:
            continue
        _replace(model, source, fuse_conv_bn_eval(convolution, norm).requires_grad_(False))
        _replace(model, node, nn.Identity())
        folded += 1
    return folded


def _pure(model: nn.Module, graph: fx.Graph) -> bool:
    """Whether the graph is the whole truth: nothing in it draws numbers, keeps state, or was frozen by tracing."""
    modules: dict[str, Any] = dict(model.named_modules())

    def known(node: fx.Node) -> bool:
        if node.op == "call_module":
            return type(modules[str(node.target)]) in _PURE_MODULES
        if node.op == "call_function":
            return node.target in _PURE_FUNCTIONS
        if node.op == "call_method":
            return node.target in _PURE_METHODS
        return node.op in ("placeholder", "output") or (
            node.op == "get_attr" and not str(node.target).startswith("_tensor_constant")
        )

    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    return len(inputs) == 1 and all(map(known, graph.nodes)) and not any(m.training for m in modules.values())


def _sweep(model: nn.Module, graph: fx.Graph, *, affine: bool) -> tuple[nn.Module, int]:
    """Spare sweeps over memory: norm and activation in one, sums and activations in place.

    Returns:
        The model as its graph, and how many operations were merged.
    """
    calls, merged = _Calls(model, graph), 0
    for node in list(graph.nodes):
        slope = _slope(calls, node)
        source = node.args[0] if node.args else None
        if slope is not None and isinstance(source, fx.Node) and len(source.users) == 1:
            norm = calls.module(source, _BATCH_NORMS)
            if affine and norm is not None and _constant(norm):
                _replace(model, source, _AffineActivation(norm, slope))
                node.replace_all_uses_with(source)
                graph.erase_node(node)
                merged += 1
            elif _fresh(calls, source):
                with graph.inserting_before(node):
                    in_place = graph.call_function(F.leaky_relu_, (source, slope))
                node.replace_all_uses_with(in_place)
                graph.erase_node(node)
                merged += 1
        elif node.op == "call_function" and node.target is operator.add and _fresh(calls, source):
            # `_fresh` says that this sum is the only reader
            node.target = operator.iadd
            merged += 1
    graph.lint()
    return fx.GraphModule(model, graph), merged


def _slope(calls: _Calls, node: fx.Node) -> float | None:
    """The slope of a (leaky) ReLU below zero, if ``node`` is one."""
    if node.op == "call_function" and node.target in (F.relu, torch.relu):
        return 0.0
    if node.op == "call_function" and node.target is F.leaky_relu:
        slope = node.args[1] if len(node.args) > 1 else node.kwargs.get("negative_slope", 0.01)
        return float(slope) if isinstance(slope, (int, float)) and slope >= 0 else None
    if node.op == "call_module":
        module = calls.modules[str(node.target)]
        if type(module) is nn.ReLU:
            return 0.0
        if type(module) is nn.LeakyReLU and module.negative_slope >= 0:
            return float(module.negative_slope)
    return None


def _fresh(calls: _Calls, node: Any) -> bool:
    """Whether a node's output is a convolution's, which nothing else reads and no backward pass needs."""
    while isinstance(node, fx.Node) and len(node.users) == 1:
        if calls.module(node, _CONVOLUTIONS) is not None:
            return True
        if calls.module(node, (nn.Identity,)) is None:
            return False
        node = node.args[0]
    return False


def _constant(norm: Any) -> bool:
    """Whether a batch norm is a fixed affine map: eval mode, with running statistics."""
    return not norm.training and norm.running_mean is not None and norm.running_var is not None


def _replace(model: nn.Module, node: fx.Node, module: nn.Module) -> None:
    parent, _, leaf = str(node.target).rpartition(".")
    setattr(operator.attrgetter(parent)(model) if parent else model, leaf, module.eval())


class _AffineActivation(nn.Module):
    """A batch norm in eval mode and the (leaky) ReLU after it, in one sweep over memory each way."""

    scale: Tensor
    shift: Tensor
    zeros: Tensor
    ones: Tensor

    def __init__(self, norm: Any, slope: float) -> None:
        super().__init__()
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = scale if norm.weight is None else norm.weight * scale
        shift = -norm.running_mean * scale
        shift = shift if norm.bias is None else norm.bias + shift
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("shift", shift.detach().clone())
        self.register_buffer("zeros", torch.zeros_like(scale))
        self.register_buffer("ones", torch.ones_like(scale))
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return F.leaky_relu_(F.batch_norm(x, self.zeros, self.ones, self.scale, self.shift, eps=0.0), self.slope)
        out: Tensor = _AffineActivationFunction.apply(x, self.scale, self.shift, self.zeros, self.ones, self.slope)
        return out


class _AffineActivationFunction(torch.autograd.Function):
    # the batch-norm kernel scales channels many times faster than a product that broadcasts

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, zeros: Tensor, ones: Tensor, slope: float) -> Tensor:
        out = F.leaky_relu_(F.batch_norm(x, zeros, ones, scale, shift, eps=0.0), slope)
        ctx.save_for_backward(out, scale, zeros, ones)
        ctx.slope = slope
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        # the output has the sign of the activation's input, so the output is all that is kept
        out, scale, zeros, ones = ctx.saved_tensors
        back = torch.ops.aten.leaky_relu_backward(grad, out, ctx.slope, True)
        return F.batch_norm(back, zeros, ones, scale, zeros, eps=0.0), None, None, None, None, None


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
