"""Accelerated passes are the plain model's passes; memory that runs out halves the batch and nothing else does."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import models, suites
from harness.backends import accelerate, noted
from harness.backends.passes import Padded, Passes, out_of_memory
from harness.engine import preflight
from harness.engine.types import Pool
from harness.errors import InvalidInput, ModelError
from harness.evaluation import examine
from harness.settings import Settings
from harness.threat import ThreatModel
from harness.threat.rng import sample_keys
from tests.engine.networks import SHAPE, network, samples


def trained_looking(name: str) -> nn.Module:
    """An architecture whose batch norms have seen data."""
    shape = {"digits-resnet": (1, 8, 8), "lenet5": (1, 28, 28)}.get(name, (3, 32, 32))
    model = models.build(name, classes=10, shape=shape, norm_layer="none" if name == "lenet5" else "batch", seed=0)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.2)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return model.eval()


@pytest.mark.parametrize("name", ["digits-resnet", "lenet5", "leaky-resnet32", "resnet20", "preact-resnet18"])
def test_same_logits_and_gradients(name: str) -> None:
    model = trained_looking(name).double()
    channels = model.network.shape[0] if hasattr(model.network, "shape") else None
    shape = {"digits-resnet": (1, 8, 8), "lenet5": (1, 28, 28)}.get(name, (3, 32, 32))
    assert channels in (None, shape[0])
    fast, notes = accelerate(model, precision="fp32")
    x = torch.rand(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    both = []
    for network_ in (model, fast):
        leaf = x.clone().requires_grad_()
        logits = network_(leaf)
        (grad,) = torch.autograd.grad(logits.logsumexp(1).sum(), leaf)
        both.append((logits.detach(), grad))
    scale = both[0][1].abs().max()
    assert torch.allclose(both[0][0], both[1][0], atol=1e-9)
    assert (both[0][1] - both[1][1]).abs().max() < 1e-9 * max(1, float(scale))
    if name != "lenet5":
        assert any(note.startswith("folded-bn:") for note in notes), notes


def test_the_model_itself_is_not_changed() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    flags = [p.requires_grad for p in model.parameters()]
    x, y = samples(model, 6)
    examine(model, x, y, threat="Linf:0.01", suite="fgsm", workers=1)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())


def test_folding_leaves_a_random_forward_random() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner((x + 0.1 * torch.randn(3, 8, 8)).clamp(0, 1))
            return out

    fast, notes = accelerate(Noisy().eval(), precision="fp32")
    x = torch.rand(2, *SHAPE)
    assert not torch.equal(fast(x), fast(x))
    assert "frozen" in notes


def test_a_model_that_python_makes_random_is_not_frozen_by_tracing() -> None:
    class Dice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x) + random.random()
            return out

    model = Dice().eval()
    x, y = samples(network(), 4)
    result = examine(model, x, y, threat="Linf:0.01", suite="autoattack-rand", workers=1).result
    assert not any(note.startswith("merged") for note in result.environment.passes)
    assert any(note.startswith("merged") for note in accelerate(model, precision="fp32")[1]), "the case must be one"


def test_a_norm_that_is_used_twice_or_in_training_mode_is_not_folded() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.norm = nn.BatchNorm2d(3)
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.fc(F.relu(self.norm(self.norm(self.conv(x)))).mean((2, 3)))
            return out

    model = Shared().eval()
    model.norm.running_mean.fill_(0.3)
    fast, notes = accelerate(model, precision="fp32")
    x = torch.rand(2, *SHAPE)
    assert torch.allclose(model(x), fast(x), atol=1e-6)
    assert not any(note.startswith("folded") for note in notes)


def test_bfloat16_keeps_the_last_layer_in_float32() -> None:
    model = network(gain=0.1)
    fast, notes = accelerate(model, precision="bf16")
    x = torch.rand(16, *SHAPE)
    assert "bf16-convolutions" in notes
    assert fast(x).dtype == torch.float32
    difference = (fast(x) - model(x)).abs().max()
    assert 0 < difference < 0.05 * model(x).abs().max()


def test_bfloat16_of_a_model_that_cannot_be_traced_is_left_to_autocast() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network(gain=0.1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x if x.sum() > 0 else x.flip(3))
            return out

    fast, notes = accelerate(Branching().eval(), precision="bf16")
    assert "bf16-autocast" in notes
    assert fast(torch.rand(4, *SHAPE)).dtype == torch.float32


class Hungry(nn.Module):
    """Runs out of memory above a batch size."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.inner = network()
        self.most = most
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise self.error
        out: Tensor = self.inner(x)
        return out


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried to"),
    ],
)
def test_out_of_memory_halves_the_batch(error: Exception) -> None:
    x, y = samples(network(), 24)
    plain = examine(network(), x, y, threat="Linf:0.02", suite="pgd", workers=1)
    done = examine(Hungry(5, error), x, y, threat="Linf:0.02", suite="pgd", workers=1, batch_size=24)
    assert done.result.robust_acc == plain.result.robust_acc
    assert done.result.environment.batch_size <= 5


def test_any_other_error_is_not_retried() -> None:
    x, y = samples(network(), 24)
    with pytest.raises(ModelError, match="the model raised RuntimeError on a batch of shape"):
        examine(Hungry(5, RuntimeError("out of patience")), x, y, threat="Linf:0.02", suite="pgd", workers=1)
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(MemoryError("a Python object"))


def test_split_losses_speak_of_their_own_rows() -> None:
    model = network(dtype=torch.float64)
    x, y = samples(model, 11)
    whole, parts = Passes(model, 6, 11), Passes(model, 6, 4)

    def loss(logits: Tensor, part: slice) -> Tensor:
        return F.cross_entropy(logits, y[part], reduction="none")

    for a, b in zip(whole.gradient(x, loss, "t"), parts.gradient(x, loss, "t"), strict=True):
        assert torch.allclose(a, b, atol=1e-12)

    def differences(logits: Tensor, part: slice) -> Tensor:
        return logits - logits.gather(1, y[part, None])

    for a, b in zip(whole.gradients(x, differences, "t"), parts.gradients(x, differences, "t"), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_large_batches_go_through_in_equal_portions() -> None:
    sizes: list[int] = []

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return x.flatten(1)[:, :6]

    x = torch.rand(25, *SHAPE)
    passes = Passes(Counting(), 6, 100, portion=12)
    passes.gradient(x, lambda logits, part: logits.sum(dim=1), "t")
    assert sizes == [9, 8, 8]
    assert torch.equal(passes.logits(x, "t"), x.flatten(1)[:, :6])
    assert sizes[3:] == [13, 12], "a sixth more where nothing is kept for a way back"
    passes.limit = 6
    passes.logits(x, "t")
    assert sizes[5:] == [5, 5, 5, 5, 5]


def test_portions_follow_the_widest_layer() -> None:
    wide = nn.Sequential(nn.Conv2d(3, 256, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256 * 64, 6)).eval()
    pair = torch.rand(2, *SHAPE)
    with noted(wide, pair) as shapes:
        wide(pair)
    assert shapes.widest == 256 * 64
    wide(pair)
    assert len(shapes.outputs["0"]) == 1, "the hooks are gone"
    cpu = torch.device("cpu")
    # 1.5 MiB over 32 KiB
    with preflight.threads(1):
        assert preflight._lanes(128 * 64, cpu) == 48
        assert preflight._lanes(10**9, cpu) == 24
        assert preflight._lanes(1, cpu) == 256
    with preflight.threads(2):
        assert preflight._lanes(128 * 64, cpu) == 96


def test_images_whose_predictions_depend_on_each_other_are_not_parted() -> None:
    x, y = samples(network(), 40)
    pool = Pool(x, y, sample_keys(x), np.arange(40))
    threat = ThreatModel.parse("Linf:0.02")

    def portion(model: nn.Module) -> tuple[int | None, int | None]:
        seen = preflight.look(model, pool, threat, suites.get("pgd", threat), Settings(), torch.device("cpu"))
        return seen.machine.passes.portion, seen.machine.judge.passes.portion

    assert portion(network()) == (256, 256)
    of_the_batch = network()
    for module in of_the_batch.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_var = module.num_batches_tracked = None
    assert portion(of_the_batch) == (None, None)


def test_precisions_that_a_cpu_lacks() -> None:
    model = network()
    x, y = samples(model, 4)
    with pytest.raises(InvalidInput, match="tf32 exists on NVIDIA GPUs only"):
        examine(model, x, y, threat="Linf:0.1", suite="clean", precision="tf32")
    with pytest.raises(InvalidInput, match="precision must be one of fp32, tf32, bf16"):
        examine(model, x, y, threat="Linf:0.1", suite="clean", precision="half")


def test_padded_batches_are_the_same_batches() -> None:
    class Sizes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network(dtype=torch.float64)
            self.seen: set[int] = set()

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add(len(x))
            out: Tensor = self.inner(x)
            return out

    inner = Sizes()
    padded = Padded(inner, largest=32, sizes=4, graphs=False)
    for n in (1, 7, 8, 9, 31, 32):
        x, _ = samples(inner.inner, n)
        leaf, same = x.clone().requires_grad_(), x.clone().requires_grad_()
        (got,) = torch.autograd.grad(padded(leaf).logsumexp(1).sum(), leaf)
        (expected,) = torch.autograd.grad(inner.inner(same).logsumexp(1).sum(), same)
        assert torch.allclose(padded(x), inner.inner(x), atol=1e-12)
        assert torch.allclose(got, expected, atol=1e-12)
    assert inner.seen == {8, 16, 32}
