"""Fused kernels compute what the layers compute, there and back."""

from __future__ import annotations

import gc
import operator
from types import MethodType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.module import register_module_forward_hook

from harness.backends import Noted, accelerate, noted
from harness.backends._affine import affine
from harness.backends._kernels import Kernels
from harness.backends._shapes import output_shapes, settle_sizes
from harness.backends._steps import Convolution, NormAndActivation
from harness.backends._sweep import sweep
from harness.evaluation import examine
from tests.engine.networks import network, samples
from tests.engine.test_passes import trained_looking


def both_ways(model: nn.Module, x: Tensor, losses: int = 1) -> tuple[Tensor, list[Tensor]]:
    """Logits, and one gradient per loss through the same graph."""
    leaf = x.clone().requires_grad_()
    logits = model(leaf)
    values = [logits.logsumexp(1).sum(), (logits[:, 0] - logits[:, 1]).sum(), logits.square().sum()][:losses]
    return logits.detach(), [torch.autograd.grad(value, leaf, retain_graph=True)[0] for value in values]


def seen(model: nn.Module, shape: tuple[int, ...]) -> Noted:
    images = torch.zeros(2, *shape, dtype=next(model.parameters()).dtype)
    with torch.no_grad(), noted(model, images) as shapes:
        model(images)
    return shapes


def accelerated(model: nn.Module, shape: tuple[int, int, int], precision: str = "fp32") -> tuple[nn.Module, list[str]]:
    return accelerate(model, precision=precision, seen=seen(model, shape))


def assert_same(model: nn.Module, shape: tuple[int, int, int], *, fused: bool = True) -> None:
    fast, notes = accelerated(model, shape)
    assert any(note.startswith("fused-convolutions") for note in notes) is fused, notes
    assert_same_passes(model, fast, shape)


def assert_same_passes(model: nn.Module, fast: nn.Module, shape: tuple[int, int, int], n: int = 5) -> None:
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(1))
    logits, grads = both_ways(model, x, 3)
    fast_logits, fast_grads = both_ways(fast, x, 3)
    with torch.no_grad():
        forward_only = fast(x)
    scale = max(1.0, float(logits.abs().max()))
    assert (fast_logits - logits).abs().max() < 1e-5 * scale
    assert (forward_only - logits).abs().max() < 1e-5 * scale
    for grad, fast_grad in zip(grads, fast_grads, strict=True):
        assert (fast_grad - grad).abs().max() < 1e-4 * float(grad.abs().max())


def kernels_of(model: nn.Module, shape: tuple[int, int, int]) -> Kernels:
    """Kernels, also where too few of the steps would be ones."""
    network = fx.symbolic_trace(model)
    shapes = output_shapes(network, network.graph, seen(model, shape))
    settle_sizes(network.graph, shapes, 2)
    sweep(network, network.graph, shapes, affine=True)
    return Kernels(network, network.graph, shapes)


@pytest.mark.parametrize("name", ["digits-resnet", "lenet5", "leaky-resnet32", "resnet20", "preact-resnet18"])
def test_architectures(name: str) -> None:
    shape = {"digits-resnet": (1, 8, 8), "lenet5": (1, 28, 28)}.get(name, (3, 32, 32))
    assert_same(trained_looking(name), shape, fused=name != "lenet5")


class Zoo(nn.Module):
    """Convolutions of all kinds, a sum that is used twice, and a shortcut around a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5, padding=2)
        self.strided = nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.dilated = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.even = nn.Conv2d(8, 8, 2, padding=1)
        self.bare = nn.Conv2d(8, 8, 3)
        self.wide = nn.Conv2d(8, 8, 1, padding=1)
        self.same = nn.Conv2d(8, 8, 3, padding="same")
        self.round = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.stem(x * 2 - 1), 0.2)
        x = F.relu(self.strided(x))
        y = self.grouped(x) + x
        z = self.dilated(y) + y
        y = F.relu(self.norm(z)) + F.relu(self.even(self.bare(y) + 1))[:, :, :1, :1] + z
        y = self.round(self.same(y)) + self.wide(y)[:, :, 1:-1, 1:-1]
        out: Tensor = self.last(F.avg_pool2d(y, 2).mean((2, 3)) + y.view(y.size(0), y.size(1), -1).sum(2))
        return out


def test_convolutions_of_all_kinds() -> None:
    torch.manual_seed(0)
    model = Zoo()
    model.norm.running_mean.normal_()
    model.norm.running_var.uniform_(0.5, 2)
    model.norm.weight.data.normal_()
    kernels = kernels_of(model.eval(), (3, 12, 12))
    assert kernels.fused >= 4
    assert_same_passes(model, kernels, (3, 12, 12))


class Sizes(nn.Module):
    """Asks for sizes in every way, of the batch too, and normalises."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.rand(3, 1, 1))
        self.register_buffer("std", torch.rand(1, 3, 1, 1) + 0.5)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.Conv2d(8, 12, 3, padding=1)
        self.last = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first((x - self.mean) / self.std))
        missing = self.second.out_channels - x.shape[1]
        x = F.relu(self.second(x)) + F.pad(x, (0, 0, 0, 0, missing // 2, missing - missing // 2))
        x = x.view(x.shape[0], x.size(1), x.size()[2] * x.size(-1))
        out: Tensor = self.last(x.mean(-1))
        return out


@pytest.mark.parametrize("side", [7, 8])
def test_sizes_of_images_are_numbers(side: int) -> None:
    torch.manual_seed(0)
    model = Sizes().eval()
    kernels = kernels_of(model, (3, side, side))
    assert_same_passes(model, kernels, (3, side, side))
    asking = [node for node in kernels.network.graph.nodes if node.target in (getattr, "size", operator.floordiv)]
    # that of the batch is asked still
    assert [node.args[-1] for node in asking] == ["shape"]


class Shortcuts(nn.Module):
    """Shortcuts that grow by channels of zeros, and what only looks like it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(4 if i == 0 else 9, 9, 3, padding=1) for i in range(4))
        self.smaller = nn.Conv2d(9, 9, 3)
        self.last = nn.Linear(9, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = F.leaky_relu(self.blocks[0](x) + F.pad(x, (0, 0, 0, 0, 2, 3)), 0.1)
        x = F.relu(self.blocks[1](x) + F.pad(x[:, 1:4], [0, 0, 0, 0, 6, 0], value=0.5))
        x = self.blocks[2](x) + F.pad(x[:, :, 1:], (0, 0, 1, 0))
        twice = F.pad(x[:, :7], (0, 0, 0, 0, 1, 1), "constant", 0)
        x = F.relu(self.smaller(self.blocks[3](x) + twice)) + twice[:, :, 1:-1, 1:-1]
        out: Tensor = self.last(x.mean((2, 3)))
        return out


def test_channels_of_zeros_are_not_added() -> None:
    torch.manual_seed(0)
    model = Shortcuts().eval()
    kernels = kernels_of(model, (3, 8, 8))
    assert_same_passes(model, kernels, (3, 8, 8))
    placed = [step.place for step in kernels._steps if isinstance(step, Convolution)]
    assert placed == [None, (2, 4), None, None, None, None]


class Siblings(nn.Module):
    """A sum whose way back gives the same to both, who each make something of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))
        self.last = nn.Conv2d(8, 5, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(F.relu(self.first(x)))
        out: Tensor = self.last(F.relu(self.norms[0](x)) + F.leaky_relu(self.norms[1](x), 0.3))
        return out.flatten(1)


def test_a_gradient_that_two_steps_get_is_not_changed_by_one() -> None:
    torch.manual_seed(0)
    model = Siblings().eval()
    for norm in model.norms:
        norm.running_mean.normal_()
    assert_same_passes(model, kernels_of(model, (3, 8, 8)), (3, 8, 8))


def test_the_gradient_of_the_logits_is_left_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 6), nn.ReLU()).eval()
    out = kernels_of(model, (3, 8, 8))(leaf := torch.rand(2, 3, 8, 8).requires_grad_())
    given = torch.rand(out.shape)
    before = given.clone()
    torch.autograd.grad(out, leaf, given)
    assert torch.equal(given, before)


@pytest.mark.parametrize(
    ("target", "args", "kwargs"),
    [
        (operator.add, (torch.rand(4, 1, 1),), {}),
        (operator.sub, (0.5,), {}),
        (operator.mul, (torch.rand(5, 4, 6, 6),), {}),
        (operator.truediv, (torch.rand(1, 4, 1, 1) + 0.5,), {}),
        (F.pad, ((1, 2, 0, 1),), {}),
        (F.pad, ([0, 0, 0, 0, 3, 1],), {"value": 2.0}),
        (F.avg_pool2d, (2,), {"ceil_mode": True}),
        (F.avg_pool2d, ((3, 2), 2, 1), {"count_include_pad": False}),
        (F.avg_pool2d, (3,), {"stride": (1, 2), "divisor_override": 4}),
        (F.adaptive_avg_pool2d, (1,), {}),
        (nn.AvgPool2d(3, padding=1), (), {}),
        (nn.AdaptiveAvgPool2d((1, 1)), (), {}),
        (nn.Linear(6, 3), (), {}),
        (nn.Flatten(), (), {}),
        (torch.flatten, (2,), {}),
        ("mean", ((2, 3),), {}),
        ("mean", (-1,), {"keepdim": True}),
        ("view", (5, 2, -1), {}),
        ("reshape", (-1, 4), {}),
    ],
)
def test_what_is_affine_goes_back_as_autograd_does(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    operation = affine(target, args, kwargs)
    assert operation is not None
    x = torch.rand(5, 4, 6, 6, requires_grad=True)
    out = operation.there(x)
    grad = torch.rand(out.shape)
    (expected,) = torch.autograd.grad(out, x, grad)
    torch.testing.assert_close(operation.back(grad.clone(), x.shape), expected)


@pytest.mark.parametrize(
    ("target", "args", "kwargs"),
    [
        (F.pad, ((1, 1, 1, 1),), {"mode": "reflect"}),
        (F.pad, ((-1, 0),), {}),
        (F.adaptive_avg_pool2d, (2,), {}),
        ("mean", (), {}),
        ("mean", ((2, 3),), {"dtype": torch.float64}),
        (F.max_pool2d, (2,), {}),
        ("relu", (), {}),
    ],
)
def test_what_is_not_known_to_be_affine_is_left_to_autograd(
    target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    assert affine(target, args, kwargs) is None


def test_a_network_without_convolutions_stays_with_torch() -> None:
    assert_same(
        nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), (3, 2, 2), fused=False
    )


def test_bfloat16_is_near() -> None:
    model = trained_looking("leaky-resnet32")
    fast, notes = accelerated(model, (3, 32, 32), "bf16")
    assert "bf16-convolutions" in notes
    assert any(note.startswith("fused") for note in notes)
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    logits, (grad,) = both_ways(model, x)
    near, (near_grad,) = both_ways(fast, x)
    assert near.dtype == near_grad.dtype == torch.float32
    assert 0 < (near - logits).abs().max() < 0.1 * logits.abs().max()
    assert (F.cosine_similarity(grad.flatten(1), near_grad.flatten(1)) > 0.9).all()


def test_images_are_left_alone_and_gradients_may_be_asked_again() -> None:
    model = trained_looking("resnet20")
    fast, _ = accelerated(model, (3, 32, 32))
    x = torch.rand(3, 3, 32, 32)
    before = x.clone()
    leaf = x.requires_grad_()
    out = fast(leaf)
    first, second = (torch.autograd.grad(out[:, 0].sum(), leaf, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(x.detach(), before)


def test_an_evaluation_runs_on_them_and_says_so() -> None:
    model = network()
    x, y = samples(model, 6)
    result = examine(model, x, y, threat="Linf:0.01", suite="fgsm", workers=1).result
    assert any(note.startswith("fused-convolutions") for note in result.environment.passes)


class Flat(nn.Module):
    """What small networks look like: a view before the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Linear(8 * 64, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.third(F.relu(self.second(F.relu(self.first(x))))))
        out: Tensor = self.last(y.view(y.size(0), -1))
        return out


def test_a_view_of_channels_last_does_not_stop_it() -> None:
    torch.manual_seed(0)
    assert_same(Flat().eval(), (3, 8, 8))


class Sums(nn.Module):
    """Sums that cannot be made in place: with itself, broadcasting, with a parameter first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.third = nn.Conv2d(8, 8, 3, padding=1)
        self.place = nn.Parameter(torch.randn(1, 8, 8, 8))
        self.last = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y = F.relu(y + y)
        y = self.second(F.avg_pool2d(y, 8)) + y
        y = F.relu(self.third(self.place) + y)
        out: Tensor = self.last((self.second(y) + y).mean((2, 3)))
        return out


def test_sums_that_cannot_be_made_in_place() -> None:
    torch.manual_seed(0)
    model = Sums().eval()
    fast, _ = accelerated(model, (3, 8, 8))
    assert_same_passes(model, fast, (3, 8, 8))


def test_the_way_back_without_what_torch_keeps_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.autograd.graph, "_engine_run_backward")
    torch.manual_seed(0)
    model = Sums().eval()
    assert_same_passes(model, kernels_of(model, (3, 8, 8)), (3, 8, 8))


def test_the_way_back_is_let_go_unless_it_is_to_be_kept() -> None:
    fast, _ = accelerated(trained_looking("resnet20"), (3, 32, 32))
    leaf = torch.rand(2, 3, 32, 32).requires_grad_()
    out = fast(leaf)
    trail = out.grad_fn.trail
    torch.autograd.grad(out.sum(), leaf, retain_graph=True)
    assert len(trail) > 20
    torch.autograd.grad(out.sum(), leaf)
    assert trail == []
    with pytest.raises(RuntimeError, match=r"way back was taken before|second time"):
        torch.autograd.grad(out.sum(), leaf)


def test_nan_stays_nan() -> None:
    torch.manual_seed(0)
    fast, notes = accelerated(Flat().eval(), (3, 8, 8))
    assert any(note.startswith("fused") for note in notes)
    x = torch.rand(2, 3, 8, 8)
    x[1, 0, 4, 4] = torch.nan
    for out in (fast(x.requires_grad_()), fast(x.detach())):
        assert out[0].isfinite().all()
        assert out[1].isnan().all()


class Plain(nn.Sequential):
    """Layers one after another, with an activation of its own after each."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        layers = [(nn.Conv2d(3 if i == 0 else 8, 8, 3, padding=1), nn.ReLU()) for i in range(3)]
        super().__init__(*(layer for pair in layers for layer in pair), nn.Flatten(), nn.Linear(8 * 64, 4))


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ReLU, nn.Sequential])
def test_a_hooked_layer_is_left_to_torch(kind: type[nn.Module]) -> None:
    model = Plain().eval()
    layer = next(m for m in model.modules() if isinstance(m, kind))
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    fast, _ = accelerated(model, (3, 8, 8))
    assert_same_passes(model, fast, (3, 8, 8))


def test_a_layer_with_a_forward_of_its_own_keeps_it() -> None:
    model = Plain().eval()
    layer = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    layer.forward = MethodType(lambda self, x: 2 * nn.Conv2d.forward(self, x), layer)  # type: ignore[method-assign]
    fast, _ = accelerated(model, (3, 8, 8))
    assert_same_passes(model, fast, (3, 8, 8))


@pytest.mark.parametrize("name", ["digits-resnet", "leaky-resnet32"])
def test_the_model_itself_stays_as_it_is(name: str) -> None:
    model = trained_looking(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    layers = {key: (type(module), set(vars(module))) for key, module in model.named_modules()}
    for precision in ("fp32", "bf16"):
        fast, _ = accelerated(model, (1, 8, 8) if name == "digits-resnet" else (3, 32, 32), precision)
        assert not any(parameter.requires_grad for parameter in fast.parameters())
    assert {key: (type(module), set(vars(module))) for key, module in model.named_modules()} == layers
    assert all(parameter.requires_grad for parameter in model.parameters())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
        assert value.is_contiguous() or value.dim() == 0, key


class Moody(nn.Module):
    """Fused kernels cannot take the way back through its in-place activation."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(3 if i == 0 else 8, 8, 3, padding=1) for i in range(4))
        self.extra, self.act = nn.Conv2d(8, 8, 1), nn.SiLU(inplace=True)
        self.last = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
        out: Tensor = self.last(self.act(self.extra(x)).mean((2, 3)))
        return out


def test_where_kernels_fail_the_graph_is_used() -> None:
    torch.manual_seed(0)
    model = Moody().eval()
    x = torch.rand(4, 3, 8, 8)
    result = examine(model, x, model(x).argmax(1), threat="Linf:0.01", suite="fgsm", workers=1).result
    notes = result.environment.passes
    assert not any(note.startswith(("fused", "as-loaded")) for note in notes), notes
    assert "channels_last" in notes


def test_a_network_ending_in_a_kernel_leaves_nothing_behind() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 4), nn.ReLU())
    model.append(nn.Flatten())
    fast, _ = accelerated(model.eval(), (3, 8, 8))
    gc.collect()
    gc.disable()
    try:
        before = sum(type(o) is Tensor for o in gc.get_objects())
        for _ in range(3):
            leaf = torch.rand(2, 3, 8, 8).requires_grad_()
            torch.autograd.grad(fast(leaf).sum(), leaf)
            fast(leaf)
            del leaf
        assert sum(type(o) is Tensor for o in gc.get_objects()) <= before
    finally:
        gc.enable()


def test_norms_in_bfloat16_take_the_activation_along() -> None:
    model = trained_looking("leaky-resnet32")
    fast, _ = accelerated(model, (3, 32, 32), "bf16")
    assert isinstance(fast, Kernels)
    norms = [step for step in fast._steps if isinstance(step, NormAndActivation)]
    assert norms
    assert all(step.kernel is not None for step in norms)
    x = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    logits, grads = both_ways(model, x)
    kernel_logits, kernel_grads = both_ways(fast, x)
    for step in norms:
        step.kernel = None
    plain_logits, plain_grads = both_ways(fast, x)
    # as close to the network as norms are whose arithmetic is in float32
    assert (kernel_logits - logits).abs().max() < 2 * (plain_logits - logits).abs().max()
    for grad, kernel_grad, plain_grad in zip(grads, kernel_grads, plain_grads, strict=True):
        cosine = F.cosine_similarity(grad.flatten(1), kernel_grad.flatten(1))
        plain_cosine = F.cosine_similarity(grad.flatten(1), plain_grad.flatten(1))
        assert (cosine > plain_cosine - 0.02).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_is_drawn_for_the_copy(precision: str) -> None:
    model = trained_looking("leaky-resnet32")
    before = torch.get_rng_state()
    accelerated(model, (3, 32, 32), precision)
    assert torch.equal(torch.get_rng_state(), before)


def test_broken_norms_are_seen_in_bfloat16() -> None:
    model = trained_looking("leaky-resnet32")
    fast, _ = accelerated(model, (3, 32, 32), "bf16")
    x = torch.rand(2, 3, 32, 32)
    x[1, 0, 5, 5] = float("nan")
    with torch.no_grad():
        finite = torch.isfinite(fast(x)).all(dim=1)
    assert finite.tolist() == [True, False]


def test_no_pass_is_made_to_learn_the_shapes() -> None:
    model = trained_looking("leaky-resnet32")
    shapes = seen(model, (3, 32, 32))
    called = []

    def note(module: nn.Module, inputs: object, output: object) -> None:
        called.extend([type(module)] if isinstance(output, Tensor) else [])

    hook = register_module_forward_hook(note)
    try:
        fast, _ = accelerate(model, precision="fp32", seen=shapes)
        assert called == []
        fast(torch.zeros(2, 3, 32, 32))
    finally:
        hook.remove()
    assert Kernels in called, "passes are seen"


@pytest.mark.parametrize("calls", [0, 2])
def test_shapes_of_another_course_are_not_believed(calls: int) -> None:
    """A module that was called more or less often than the graph says: nothing is fused."""
    model = trained_looking("resnet20")
    shapes = seen(model, (3, 32, 32))
    name = next(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    shapes.outputs[name] *= calls
    fast, notes = accelerate(model, precision="fp32", seen=shapes)
    assert not any(note.startswith("fused") for note in notes)
    assert_same_passes(model, fast, (3, 32, 32))
