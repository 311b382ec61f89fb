"""Architectures from elsewhere: torchvision, timm, robustbench, and a user's file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from harness import models
from harness.errors import InvalidInput, UnknownName
from harness.models import Model

SHAPE = (3, 32, 32)


def build(architecture: str, *, classes: int = 10, shape: tuple[int, int, int] = SHAPE, norm: str = "own") -> Model:
    return models.build(architecture, classes=classes, shape=shape, norm_layer=norm, seed=0)


def check(model: Model) -> None:
    """What every network owes: logits of the right shape, and groups that hold each parameter once."""
    model.eval()
    with torch.no_grad():
        assert model(torch.rand(2, *model.shape)).shape == (2, model.classes)
    groups = models.layer_groups(model)
    assert list(groups)[-1] == "head"
    for name, _ in model.network.named_parameters():
        assert sum(models.in_group(name, prefixes) for prefixes in groups.values()) == 1, name


class TestLibraries:
    def test_torchvision(self) -> None:
        model = build("torchvision:resnet18", classes=7)
        check(model)
        groups = models.layer_groups(model)
        assert list(groups) == ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "head"]
        assert groups["head"] == ("fc",)
        assert model.norm_layer == "own"

    def test_timm_is_told_channels_and_size(self) -> None:
        pytest.importorskip("timm")
        check(build("timm:resnet10t", classes=4, shape=(1, 64, 64)))
        vit = build("timm:vit_tiny_patch16_224", shape=SHAPE)
        check(vit)
        assert next(iter(models.layer_groups(vit))) == "stem"  # class token and positions belong to no layer

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["Rice2020Overfitting", "cifar10/L2/Rice2020Overfitting"])
    def test_robustbench(self, name: str) -> None:
        model = build(f"robustbench:{name}")
        assert model.training
        check(model)

    @pytest.mark.parametrize(
        ("architecture", "text"),
        [
            ("torchvision:resnt18", "did you mean 'resnet18'"),
            ("timm:resnt18", "did you mean 'resnet18'"),
            ("robustbench:Rice2020Overfiting", "did you mean 'Rice2020Overfitting'"),
            ("robustbench:cifar10/L3/Rice2020Overfitting", "threat model"),
            ("torchvison:resnet18", "did you mean 'torchvision'"),
        ],
    )
    def test_unknown_names_show_the_nearest(self, architecture: str, text: str) -> None:
        with pytest.raises(UnknownName, match=text) as caught:
            build(architecture)
        assert len(str(caught.value)) < 700

    def test_a_name_without_its_source_is_found(self) -> None:
        pytest.importorskip("timm")
        with pytest.raises(InvalidInput, match="write timm:mobilenetv3_small_050"):
            build("mobilenetv3_small_050")
        with pytest.raises(InvalidInput, match="write timm:resnet18 or torchvision:resnet18"):
            build("resnet18")

    @pytest.mark.parametrize(
        ("architecture", "classes", "channels", "text"),
        [
            ("torchvision:resnet18", 10, 1, "takes images of 3 channels, got 1"),
            ("robustbench:Rice2020Overfitting", 10, 1, "takes images of 3 channels, got 1"),
            ("robustbench:Rice2020Overfitting", 7, 3, "not for 7"),
            ("robustbench:cifar10/Rice2020Overfitting", 10, 3, "DATASET/THREAT/NAME"),
            ("robustbench:Standard_R50", 1000, 3, "only by downloading its weights"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, architecture: str, classes: int, channels: int, text: str) -> None:
        with pytest.raises(InvalidInput, match=text):
            build(architecture, classes=classes, shape=(channels, 8, 8))

    def test_a_library_that_fails_is_quoted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*arguments: object, **settings: object) -> None:
            raise ValueError("no such\nwindow size")

        monkeypatch.setattr("torchvision.models.get_model", fail)
        with pytest.raises(InvalidInput, match=r"cannot be built for 10 classes .*ValueError: no such window size"):
            build("torchvision:resnet18")

    def test_norm_layers_are_their_own(self) -> None:
        assert build("torchvision:resnet18", norm="batch").norm_layer == "own"
        with pytest.raises(InvalidInput, match="expected norm layer 'own', got 'dual'"):
            build("torchvision:resnet18", norm="dual")
        with pytest.raises(InvalidInput, match="expected norm layer 'own', got 'batch'"):
            build("timm:vit_tiny_patch16_224", norm="batch")


HELPER = "WIDTH = 5\n"

USER = """
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

import user_parts_of_this_test


@dataclass
class Settings:
    width: typing_is_not_imported = user_parts_of_this_test.WIDTH


class Net(nn.Module):
    def __init__(self, classes, shape):
        super().__init__()
        self.body = nn.Conv2d(shape[0], Settings().width, 3)
        self.linear = nn.Linear(Settings().width, classes)

    def forward(self, x):
        return self.linear(torch.relu(self.body(x)).mean((2, 3)))


def plain(classes, shape):
    return Net(classes, shape)


def bare():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))


def normed(classes, *, norm_layer):
    body = nn.Conv2d(3, 8, 3)
    return nn.Sequential(body, norm_layer(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))


def anything(**settings):
    assert set(settings) <= {"classes", "shape", "norm_layer"}
    return Net(settings["classes"], settings["shape"])


def fallen(classes):
    raise RuntimeError("out of\\nideas")


def leaving():
    raise SystemExit(3)


def greedy(classes, depth, path):
    return None


def text():
    return "a network"


built = nn.Linear(3, 3)
number = 3
"""


class TestUserFile:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "user_parts_of_this_test.py").write_text(HELPER)
        path = tmp_path / "mine.py"
        path.write_text(USER)
        return path

    @pytest.mark.parametrize("factory", ["plain", "Net", "bare", "normed", "anything"])
    def test_factories_get_what_they_take(self, file: Path, factory: str) -> None:
        check(build(f"{file}:{factory}"))

    def test_found_from_the_current_folder(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(file.parent)
        check(build("mine.py:plain"))

    def test_norm_layer_is_injected(self, file: Path) -> None:
        assert build(f"{file}:normed").norm_layer == "batch"
        model = build(f"{file}:normed", norm="group")
        assert model.norm_layer == "group"
        assert isinstance(model.network[1], nn.GroupNorm)

    def test_seed_decides_the_weights(self, file: Path) -> None:
        first, second = (build(f"{file}:plain").state_dict() for _ in range(2))
        assert all(torch.equal(first[key], second[key]) for key in first)

    def test_the_import_path_is_left_as_it_was(self, file: Path) -> None:
        import sys

        before = list(sys.path)
        build(f"{file}:plain")
        with pytest.raises(InvalidInput):
            build(f"{file}:fallen")
        assert sys.path == before

    @pytest.mark.parametrize(
        ("factory", "text"),
        [
            ("fallen", "fails when it is called: RuntimeError: out of ideas"),
            ("leaving", "fails when it is called: SystemExit: 3"),
            ("greedy", "needs depth, path: give them with --arch-args depth=...,path=..."),
            ("text", "must return a torch.nn.Module, got str"),
            ("built", "must be a function or class that makes a network, got a Linear"),
            ("number", "must be a function or class that makes a network, got a int"),
        ],
    )
    def test_a_bad_factory_is_named(self, file: Path, factory: str, text: str) -> None:
        with pytest.raises(InvalidInput, match=text):
            build(f"{file}:{factory}")

    def test_a_missing_factory_shows_what_the_file_defines(self, file: Path) -> None:
        with pytest.raises(UnknownName, match=r"expected one of Net, .*did you mean 'plain'\?") as caught:
            build(f"{file}:plane")
        assert "nn" not in caught.value.known

    def test_a_missing_file_and_a_missing_factory_name(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="there is no file"):
            build(f"{tmp_path}/none.py:net")
        with pytest.raises(InvalidInput, match=r"written FILE\.py:FACTORY"):
            build(f"{tmp_path}/none.py")

    @pytest.mark.parametrize("source", ["def net(:\n", "import nothing_of_this_name\n", "raise SystemExit\n"])
    def test_a_file_that_does_not_run(self, tmp_path: Path, source: str) -> None:
        path = tmp_path / "broken.py"
        path.write_text(source)
        with pytest.raises(InvalidInput, match="fails when it is run"):
            build(f"{path}:net")

    def test_norm_layer_asked_of_a_factory_without_is_refused(self, file: Path) -> None:
        with pytest.raises(InvalidInput, match="expected norm layer 'own', got 'group'"):
            build(f"{file}:plain", norm="group")


class TestGroups:
    def test_a_wrapper_is_looked_through(self) -> None:
        inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
        wrapped = nn.Sequential(nn.Identity(), nn.Sequential(inner))
        assert models.layer_groups(wrapped) == {"0": ("1.0.0",), "head": ("1.0.3",)}

    def test_a_single_layer_is_the_head(self) -> None:
        assert models.layer_groups(nn.Linear(3, 2)) == {"head": ("weight", "bias")}
        assert models.layer_groups(nn.Sequential(nn.Flatten(), nn.Linear(3, 2))) == {"head": ("1",)}

    def test_an_earlier_child_called_head_joins_the_last_group(self) -> None:
        network = nn.Module()
        network.body, network.head, network.head_dist = (nn.Linear(2, 2) for _ in range(3))
        assert models.layer_groups(network) == {"body": ("body",), "head": ("head", "head_dist")}

    def test_names_are_prefixes_of_whole_parts(self) -> None:
        assert models.in_group("layer1.0.weight", ("layer1",))
        assert not models.in_group("layer10.weight", ("layer1",))
        assert models.in_group("token", ("token",))


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained", "pretrained_cfg", "cache_dir"])
def test_arguments_of_timm_that_read_files_are_refused(argument: str) -> None:
    """timm unpickles what ``checkpoint_path`` names, and a manifest may be a stranger's."""
    with pytest.raises(InvalidInput, match=f"takes its weights from the checkpoint alone: leave out {argument}"):
        models.build("timm:resnet10t", classes=10, shape=(3, 32, 32), arguments={argument: "evil.bin"})
