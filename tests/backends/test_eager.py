"""The eager backend computes what the model computes, forward and backward, and leaves the model as it was."""

from __future__ import annotations

import copy
import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import models
from harness.backends import eager
from harness.evaluation import examine
from tests.engine.networks import SHAPE, network, samples
from tests.support import trained_looking

ARCHITECTURES = {
    "digits-resnet": (1, 8, 8),
    "lenet5": (1, 28, 28),
    "leaky-resnet32": (3, 32, 32),
    "resnet20": (3, 32, 32),
    "preact-resnet18": (3, 32, 32),
    "wrn-28-10": (3, 32, 32),
}


def both_ways(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the gradients of three losses through the same graph."""
    leaf = x.clone().requires_grad_()
    logits = model(leaf)
    values = [logits.logsumexp(1).sum(), (logits[:, 0] - logits[:, 1]).sum(), logits.square().sum()]
    return logits.detach(), [torch.autograd.grad(value, leaf, retain_graph=True)[0] for value in values]


def assert_same(model: nn.Module, x: Tensor, *, tolerance: float = 1e-9) -> tuple[str, ...]:
    """The copy's notes, after a look at its logits with and without gradients, and at three gradients of one graph."""
    fast = eager(model, precision="fp32")
    images = x.contiguous(memory_format=fast.layout_of(x))
    logits, gradients = both_ways(model, x)
    fast_logits, fast_gradients = both_ways(fast.network, images)
    with torch.no_grad():
        forward_only = fast.network(images)
    scale = max(1.0, float(logits.abs().max()))
    assert (fast_logits - logits).abs().max() < tolerance * scale
    assert (forward_only - logits).abs().max() < tolerance * scale
    for gradient, fast_gradient in zip(gradients, fast_gradients, strict=True):
        assert (fast_gradient - gradient).abs().max() < tolerance * max(1.0, float(gradient.abs().max()))
    return fast.notes


@pytest.mark.parametrize("name", [name for name in models.names() if name in ARCHITECTURES])
def test_every_architecture(name: str) -> None:
    model = trained_looking(name).double() if name != "wrn-28-10" else trained_looking(name)
    x = torch.rand(3, *ARCHITECTURES[name], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    small = x if name != "wrn-28-10" else x[:1, :, :16, :16].float()
    notes = assert_same(model, small, tolerance=1e-9 if small.dtype == torch.float64 else 1e-4)
    assert any(note.startswith("folded-bn:") for note in notes) == (name != "lenet5")
    assert any(note.startswith("in-place:") for note in notes)


class Zoo(nn.Module):
    """Convolutions of many kinds, sums that are read twice, sizes, broadcasting, and a norm without a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5, padding=2)
        self.strided = nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.dilated = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.round = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")
        self.norm, self.bare = nn.BatchNorm2d(8), nn.BatchNorm2d(8, affine=False)
        self.features = nn.BatchNorm1d(8)
        self.last = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.stem(x * 2 - 1), 0.2)
        x = F.relu(self.strided(x))
        y = self.grouped(x) + x
        z = self.dilated(y) + y
        y = F.relu(self.norm(z)) + F.relu(self.round(z) + 1)[:, :, :1, :1] + z
        y = self.bare(self.grouped(y) + y.mean((2, 3), keepdim=True))
        pooled = y.view(y.size(0), y.size(1), (y.size(2) + 0) * y.size(3)).sum(2)
        out: Tensor = self.last(F.relu(self.features(pooled) + 1) + pooled)
        return out


def test_a_network_of_many_kinds() -> None:
    torch.manual_seed(0)
    model = Zoo()
    for norm in (model.norm, model.bare, model.features):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    model.norm.weight.data.normal_()
    notes = assert_same(model.double().eval(), torch.rand(5, 3, 12, 12, dtype=torch.float64))
    assert any(note.startswith("in-place:") for note in notes)


def test_the_model_itself_is_not_changed() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    flags = [p.requires_grad for p in model.parameters()]
    x, y = samples(model, 6)
    examine(model, x, y, threat="Linf:0.01", suite="fgsm", workers=1)
    fast = eager(model, precision="fp32").network
    fast(x)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert not any(p.requires_grad for p in fast.parameters())


def test_nothing_is_drawn_and_images_stay_as_they_are() -> None:
    model = trained_looking("leaky-resnet32")
    torch.manual_seed(0)
    state, x = torch.get_rng_state(), torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    before = x.clone()
    fast = eager(model, precision="fp32").network
    fast(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, before)


def test_folding_leaves_a_random_forward_random() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner((x + 0.1 * torch.randn(3, 8, 8)).clamp(0, 1))
            return out

    fast = eager(Noisy().eval(), precision="fp32")
    x = torch.rand(2, *SHAPE)
    assert not torch.equal(fast.network(x), fast.network(x))
    assert not any(note.startswith("in-place") for note in fast.notes)


def test_a_model_that_python_makes_random_is_attacked_as_it_is() -> None:
    class Dice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x) + random.random()
            return out

    model = Dice().eval()
    x, y = samples(network(), 4)
    result = examine(model, x, y, threat="Linf:0.01", suite="fgsm", workers=1).result
    assert not any(note.startswith("in-place") for note in result.environment.passes)
    assert any(note.startswith("in-place") for note in eager(model, precision="fp32").notes), "the case must be one"


class Shared(nn.Module):
    """A norm that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(F.relu(self.norm(self.norm(self.conv(x)))).mean((2, 3)))
        return out


def test_a_norm_that_is_called_twice_is_not_folded() -> None:
    model = Shared().double().eval()
    model.norm.running_mean.fill_(0.3)
    notes = assert_same(model, torch.rand(2, *SHAPE, dtype=torch.float64))
    assert not any(note.startswith("folded") for note in notes)


@pytest.mark.parametrize("hook", ["forward", "pre", "replaced"])
def test_code_of_the_user_around_a_layer_stays_in_charge(hook: str) -> None:
    model = network(dtype=torch.float64)
    layer = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    if hook == "forward":
        layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    elif hook == "pre":
        layer.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    else:
        layer.forward = lambda x: 3 * x  # type: ignore[method-assign]
    assert_same(model, torch.rand(2, *SHAPE, dtype=torch.float64))


def test_an_input_that_is_read_again_is_not_overwritten() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            out: Tensor = self.fc((F.relu(y) + 0.5 * y).mean((2, 3)))
            return out

    assert_same(Twice().double().eval(), torch.rand(2, *SHAPE, dtype=torch.float64))


def test_bfloat16_keeps_the_last_layer_in_float32() -> None:
    model = network(gain=0.1)
    fast = eager(model, precision="bf16")
    x = torch.rand(16, *SHAPE)
    assert "bf16-autocast" in fast.notes
    assert fast.network(x).dtype == torch.float32
    difference = (fast.network(x) - model(x)).abs().max()
    assert 0 < difference < 0.05 * model(x).abs().max()


def test_bfloat16_of_a_model_that_cannot_be_traced() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network(gain=0.1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x if x.sum() > 0 else x.flip(3))
            return out

    model, x = Branching().eval(), torch.rand(4, *SHAPE)
    fast = eager(model, precision="bf16")
    assert (fast.network(x) - model(x)).abs().max() < 0.05 * model(x).abs().max()
