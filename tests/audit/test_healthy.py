"""Healthy models of all kinds get no flag from the audit before the attack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness import checkpoints, models
from harness.audit import checks
from harness.models import Normalization
from harness.threat import ThreatModel
from tests.audit.planted import digits
from tests.house._tree import ROOT
from tests.support import SHARED

SHIPPED = sorted((ROOT / "checkpoints").glob("*.pt"))
CIFAR = Normalization((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def audited(model: nn.Module, x: Tensor, y: Tensor, threat: str) -> list[str]:
    return [str(flag) for flag in checks.audit(model, x, y, ThreatModel.parse(threat), batch_size=24)]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
@pytest.mark.parametrize("threat", ["Linf:0.15", "L2:1", "L1:5"])
def test_shipped(path: Path, threat: str) -> None:
    assert audited(checkpoints.load(path).model, *digits(32), threat) == []


def torchvision_model(name: str) -> nn.Module:
    from torchvision.models import get_model

    network: nn.Module = get_model(name, weights=None, num_classes=10)
    return network


def timm_model(name: str, **options: object) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(name, num_classes=10, **options)
    return network


def small(norm: Callable[[int], nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), norm(16), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(1024, 10)
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "torchvision squeezenet": lambda: torchvision_model("squeezenet1_1"),
    "torchvision shufflenet": lambda: torchvision_model("shufflenet_v2_x0_5"),
    "timm ViT": lambda: timm_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=4),
    "timm resnet10t": lambda: timm_model("resnet10t"),
    "timm convnext": lambda: timm_model("convnext_atto"),
    "timm GroupNorm": lambda: timm_model("resnet10t", norm_layer=lambda channels: nn.GroupNorm(8, channels)),
    "timm regnet": lambda: timm_model("regnetx_002"),
    "GroupNorm": lambda: small(lambda channels: nn.GroupNorm(4, channels)),
    "LayerNorm": lambda: small(lambda channels: nn.GroupNorm(1, channels)),
    "InstanceNorm": lambda: small(nn.InstanceNorm2d),
    "no norm": lambda: small(lambda channels: nn.Identity()),
    "BatchNorm": lambda: small(nn.BatchNorm2d),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)),
    "tanh": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 64), nn.Tanh(), nn.Linear(64, 10)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_with_random_weights(name: str) -> None:
    """Labels are their own answers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = NETWORKS[name]().eval(), torch.rand(8, 3, 32, 32)
    assert audited(model, x, model(x).argmax(1), "Linf:8/255") == []


@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="no shared data folder")
@pytest.mark.parametrize(
    ("file", "architecture", "normalization", "data", "threat"),
    [
        ("resnet32_at_all.pt", "leaky-resnet32", CIFAR, "cifar10_test_600.npz", "Linf:8/255"),
        ("resnet32_nt_then_at_init_block1.pt", "leaky-resnet32", CIFAR, "cifar10_test_600.npz", "L2:0.5"),
        ("cifar10_resnet20_natural.th", "resnet20", IMAGENET, "cifar10_test_600.npz", "Linf:8/255"),
        ("mnist_lenet5_advtrained.pt", "lenet5", None, "mnist_test.npz", "Linf:0.3"),
    ],
)
def test_published(file: str, architecture: str, normalization: Normalization | None, data: str, threat: str) -> None:
    with np.load(SHARED / "data" / data) as arrays:
        x = torch.from_numpy(arrays["x"][:16]).float() / 255
        y = torch.from_numpy(arrays["y"][:16]).long()
    state = torch.load(SHARED / "models" / file, weights_only=True, map_location="cpu")
    if "state_dict" in state:
        state = {key.removeprefix("module."): value for key, value in state["state_dict"].items()}
    model = models.build(
        architecture, classes=10, shape=(x.shape[1], x.shape[2], x.shape[3]), normalization=normalization
    ).eval()
    model.network.load_state_dict(state, strict=True)
    assert audited(model, x, y, threat) == []
