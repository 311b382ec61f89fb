"""Public checkpoints load strictly into these architectures and classify as well as was measured elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from harness import models
from harness.models import Normalization
from tests.support import SHARED

pytestmark = pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="no shared data folder")

N = 200
CIFAR = Normalization((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("file", "architecture", "normalization", "data", "expected"),
    [
        ("resnet32_natural.pt", "leaky-resnet32", CIFAR, "cifar10_test_600.npz", 93.97),
        ("resnet32_nt_then_at_block3_linear.pt", "leaky-resnet32", CIFAR, "cifar10_test_600.npz", 78.25),
        ("cifar10_resnet20_natural.th", "resnet20", IMAGENET, "cifar10_test_600.npz", 91.73),
        ("mnist_lenet5_advtrained.pt", "lenet5", None, "mnist_test.npz", 99.0),
    ],
)
def test_clean_accuracy(
    file: str, architecture: str, normalization: Normalization | None, data: str, expected: float
) -> None:
    with np.load(SHARED / "data" / data) as arrays:
        x = torch.from_numpy(arrays["x"][:N]).float() / 255
        y = torch.from_numpy(arrays["y"][:N]).long()
    state: dict[str, Tensor] = torch.load(SHARED / "models" / file, weights_only=True, map_location="cpu")
    if "state_dict" in state:
        state = {key.removeprefix("module."): value for key, value in state["state_dict"].items()}
    model = models.build(architecture, classes=10, shape=tuple(x.shape[1:]), normalization=normalization).eval()
    model.network.load_state_dict(state, strict=True)
    with torch.no_grad():
        accuracy = 100 * (model(x).argmax(1) == y).float().mean().item()
    assert accuracy == pytest.approx(expected, abs=4)
