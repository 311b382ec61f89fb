"""Accelerated passes are the plain model's passes; memory that runs out halves the batch and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import suites
from harness.backends.passes import Passes, out_of_memory
from harness.backends.precision import to_try
from harness.engine import preflight
from harness.engine.types import Pool
from harness.errors import InvalidInput, ModelError
from harness.evaluation import examine
from harness.settings import Settings
from harness.threat import ThreatModel
from harness.threat.rng import sample_keys
from tests.engine.networks import SHAPE, network, samples

pytestmark = pytest.mark.usefixtures("unaudited")


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


def test_channels_that_come_last_are_recognised() -> None:
    x, y = samples(network(), 4)
    with pytest.raises(ModelError, match=r"images are \[n, C, H, W\]: give x.transpose"):
        examine(network(), x.movedim(1, 3), y, threat="Linf:0.02", suite="fgsm", workers=1)


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
    passes = Passes(Counting(), 6, 100, micro_batch=12)
    passes.gradient(x, lambda logits, part: logits.sum(dim=1), "t")
    assert sizes == [9, 8, 8]
    assert torch.equal(passes.logits(x, "t"), x.flatten(1)[:, :6])
    assert sizes[3:] == [13, 12], "a sixth more where nothing is kept for a way back"
    passes.limit = 6
    passes.logits(x, "t")
    assert sizes[5:] == [5, 5, 5, 5, 5]


def test_images_whose_predictions_depend_on_each_other_are_not_parted() -> None:
    x, y = samples(network(), 40)
    pool = Pool(x, y, sample_keys(x), np.arange(40))
    threat = ThreatModel.parse("Linf:0.02")

    def micro_batches(model: nn.Module) -> tuple[int | None, int | None]:
        made = preflight.prepare(model, pool, threat, suites.get("pgd", threat), Settings(), torch.device("cpu"))
        return made.machine.passes.micro_batch, made.machine.judge.passes.micro_batch

    ours, judges = micro_batches(network())
    assert ours is not None
    assert ours == judges
    of_the_batch = network()
    for module in of_the_batch.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_var = module.num_batches_tracked = None
    assert micro_batches(of_the_batch) == (None, None)


def test_a_gpu_tries_tf32_unless_float32_is_asked_for() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert (to_try("auto", gpu), to_try("fp32", gpu), to_try("bf16", gpu)) == (
        ("tf32", "fp32"),
        ("fp32",),
        ("bf16", "fp32"),
    )
    assert to_try("auto", cpu) == ("fp32",)


def test_precisions_that_a_cpu_lacks() -> None:
    model = network()
    x, y = samples(model, 4)
    with pytest.raises(InvalidInput, match="tf32 exists on NVIDIA GPUs only"):
        examine(model, x, y, threat="Linf:0.1", suite="clean", precision="tf32")
    with pytest.raises(InvalidInput, match="precision must be one of auto, fp32, tf32, bf16"):
        examine(model, x, y, threat="Linf:0.1", suite="clean", precision="half")
