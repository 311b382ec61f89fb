"""The network of a submission works without this package, and with RobustBench's own loader."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness import checkpoints, models
from harness.checkpoints import Checkpoint
from harness.errors import InvalidInput
from harness.models import Normalization
from harness.models.sources._zoo import import_package
from harness.publishing.submission._architecture import architecture_of, largest_difference, weights_of
from harness.publishing.submission._board import layout_of
from harness.util.user_file import from_file
from tests.support import trained_looking

NORMALIZATION = Normalization((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))


def registered(folder: Path, architecture: str, *, norm_layer: str = models.OWN, classes: int = 10) -> Checkpoint:
    """A checkpoint of a CIFAR network with weights that no file of its own could have by chance."""
    model = models.build(
        architecture, classes=classes, shape=(3, 32, 32), norm_layer=norm_layer, normalization=NORMALIZATION, seed=1
    )
    path = checkpoints.save(model, directory=folder, name="made")
    return checkpoints.load(path)


def difference(folder: Path, point: Checkpoint) -> float:
    layout = layout_of("cifar10")
    made = architecture_of(point, layout, "Poe2024Robust_A-1", "# header\n")
    assert "harness" not in made.text.replace("robust-harness", "")
    assert (made.module, made.class_name) == ("poe2024robust_a_1", "Poe2024Robust_A_1Net")
    (folder / f"{made.module}.py").write_text(made.text)
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    weights = weights_of(point, layout)
    return largest_difference(folder / f"{made.module}.py", made.class_name, weights, layout, point.model, images)


@pytest.mark.parametrize("architecture", ["leaky-resnet32", "lenet5", "preact-resnet18", "resnet20", "timm:resnet10t"])
def test_every_kind_of_architecture_stands_alone(architecture: str, tmp_path: Path) -> None:
    assert difference(tmp_path, registered(tmp_path, architecture)) == 0


@pytest.mark.parametrize("norm_layer", [name for name in models.norm_layers.names() if name != "batch"])
def test_every_norm_layer_stands_alone(norm_layer: str, tmp_path: Path) -> None:
    assert difference(tmp_path, registered(tmp_path, "digits-resnet", norm_layer=norm_layer)) == 0


NET = """from __future__ import annotations

from torch import nn


def net(classes: int, width: int = 2) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
"""


def test_a_file_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    point = registered(tmp_path, f"{tmp_path / 'net.py'}:net")
    assert difference(tmp_path, point) == 0
    (tmp_path / "helper.py").touch()
    (tmp_path / "two.py").write_text(f"import helper\n{NET.partition('annotations')[2]}")
    with pytest.raises(InvalidInput, match="cannot be written as one file"):
        difference(tmp_path, registered(tmp_path / "two", f"{tmp_path / 'two.py'}:net"))


def test_names_that_the_loader_would_change_are_refused(tmp_path: Path) -> None:
    text = NET.replace("return nn.Sequential(", "return nn.ModuleDict(dict(model=nn.Sequential(").rstrip() + "))\n"
    (tmp_path / "net.py").write_text(text)
    point = registered(tmp_path, f"{tmp_path / 'net.py'}:net")
    with pytest.raises(InvalidInput, match="would change the name"):
        weights_of(point, layout_of("cifar10"))


@pytest.mark.parametrize(("dataset", "classes"), [("cifar10", 10), ("cifar100", 100), ("imagenet", 1000)])
def test_robustbench_loads_it(dataset: str, classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_package()
    zoo = importlib.import_module("robustbench.model_zoo.models").model_dicts
    loader = importlib.import_module("robustbench.utils")
    entries = zoo[loader.BenchmarkDataset(dataset)][loader.ThreatModel("Linf")]
    point, layout = registered(tmp_path, "lenet5", classes=classes), layout_of(dataset)
    made = architecture_of(point, layout, "Poe2024Robust", "")
    (tmp_path / "made.py").write_text(made.text)
    factory = from_file(f"{tmp_path / 'made.py'}:{made.class_name}", "model")
    monkeypatch.setitem(entries, "Poe2024Robust", {"model": factory, "gdrive_id": "none"})
    weights = tmp_path / "models" / dataset / "Linf" / "Poe2024Robust.pt"
    weights.parent.mkdir(parents=True)
    torch.save(weights_of(point, layout), weights)
    loaded = loader.load_model("Poe2024Robust", tmp_path / "models", dataset, "Linf")
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(images), point.model(images))


def test_it_runs_where_this_package_is_not_installed(tmp_path: Path) -> None:
    path = checkpoints.save(trained_looking("digits-resnet"), directory=tmp_path, name="digits")  # type: ignore[arg-type]
    made = architecture_of(checkpoints.load(path), layout_of("digits"), "Poe2024Robust", "")
    (tmp_path / "made.py").write_text(made.text)
    use = f"made.{made.class_name}()(torch.rand(2, 1, 8, 8))"
    program = f"import made, torch, sys; {use}; assert 'harness' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
