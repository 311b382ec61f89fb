"""One rule finds a network in whatever people save: every name, with its shape, behind one prefix."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness import checkpoints
from harness.errors import CheckpointError, InvalidInput
from harness.models import Normalization
from tests.registry.material import packed, small, weights

DESCRIBED: dict[str, Any] = {"architecture": "digits-resnet", "dataset": "digits", "normalization": "none"}
CONSTANTS = {"mean": torch.tensor([0.1307]).view(1, 1, 1), "std": torch.tensor([0.3081]).view(1, 1, 1)}


def bring(folder: Path, held: Any, **facts: Any) -> checkpoints.Checkpoint:
    file = folder / "foreign.pt"
    file.write_bytes(packed(held))
    path = checkpoints.import_file(
        file, name="own", directory=folder / "registry", overwrite=True, **(DESCRIBED | facts)
    )
    return checkpoints.load(path)


def under(prefix: str, tensors: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in (tensors or weights()).items()}


def taken(loaded: checkpoints.Checkpoint, seed: int = 0) -> bool:
    return checkpoints.weights_sha256(loaded.model) == checkpoints.weights_sha256(small(seed))


FILES: dict[str, Callable[[], Any]] = {
    "a training checkpoint": lambda: {
        "state_dict": weights(),
        "epoch": 90,
        "best_acc1": torch.tensor(70.1),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
        "args": argparse.Namespace(lr=0.1),
        "best": np.float64(0.9),
    },
    "an unusual entry": lambda: {"student_weights": weights(), "epoch": 3},
    "three levels down": lambda: {"a": {"b": {"weights": under("module.")}}},
    "in a list": lambda: [3, weights(), {"lr": 0.1}],
    "lightning with a loss": lambda: {"state_dict": under("model.") | {"criterion.weight": torch.ones(10)}},
    "a backbone": lambda: under("backbone."),
    "the third of a sequence": lambda: under("2."),
    "compiled and parallel": lambda: under("module._orig_mod."),
    "twice the same": lambda: under("student.") | under("teacher."),
    "the parts of the network as entries": lambda: {
        part: {n.partition(".")[2]: t for n, t in weights().items() if n.partition(".")[0] == part}
        for part in {n.partition(".")[0] for n in weights()}
    },
    "an averaged model": lambda: {"model_ema": under("module.") | {"n_averaged": torch.tensor(5)}},
}


@pytest.mark.parametrize("kind", FILES)
def test_the_network_is_found(kind: str, tmp_path: Path) -> None:
    assert taken(bring(tmp_path, FILES[kind]()))


def test_what_was_done_is_noted(tmp_path: Path) -> None:
    held = {"state_dict": under("model.") | {"criterion.weight": torch.ones(10)}, "args": argparse.Namespace(lr=0.1)}
    assert bring(tmp_path, held).manifest.notes == (
        "took the prefix 'model.' off all names",
        "left out 1 tensor that the architecture lacks (criterion.weight)",
        "did not open objects of argparse.Namespace",
    )
    held = under("") | {"sub_block1.conv1.weight": torch.zeros(3), "total_ops": torch.zeros(1)}
    assert bring(tmp_path, held).manifest.notes == (
        "left out 2 tensors that the architecture lacks (sub_block1.conv1.weight, total_ops)",
    )


@pytest.mark.parametrize(
    ("raw", "averaged"), [("state_dict", "state_dict_ema"), ("net", "ema_net"), ("model", "teacher"), ("0", "1")]
)
def test_two_networks_that_differ_are_asked_about(raw: str, averaged: str, tmp_path: Path) -> None:
    held = {raw: weights(), averaged: weights(small(1))}
    with pytest.raises(CheckpointError, match=rf"differ \({raw}, {averaged}\)|differ \({averaged}, {raw}\)"):
        bring(tmp_path, held)
    assert taken(bring(tmp_path, held, entry=raw))
    assert taken(bring(tmp_path, held, entry=averaged), seed=1)


def test_an_entry_is_named_by_its_place(tmp_path: Path) -> None:
    held = {"a": {"b": under("module.")}, "c": under("", weights(small(1)))} | weights(small(2))
    for entry, seed in (("a", 0), ("a/b", 0), ("a.b", 0), ("a.b.module", 0), ("c", 1), (".", 2)):
        assert taken(bring(tmp_path, held, entry=entry), seed), entry
    with pytest.raises(CheckpointError, match="no entry 'd', it has"):
        bring(tmp_path, held, entry="d")


def test_weights_that_share_a_name_are_not_guessed_at(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"two tensors named a\.conv1\.weight"):
        bring(tmp_path, {"a": weights(), "a.conv1.weight": torch.zeros(16, 1, 3, 3)})


def test_what_is_lacking_is_said_of_the_nearest_place(tmp_path: Path) -> None:
    held = {f"backbone.{n}" if not n.startswith("linear") else f"head.{n}": t for n, t in weights().items()}
    with pytest.raises(CheckpointError) as caught:
        bring(tmp_path, {"state_dict": held})
    text = str(caught.value)
    assert "in state_dict behind the prefix 'backbone.': 2 missing (linear.weight, linear.bias)" in text
    assert "2 unexpected (head.linear.weight, head.linear.bias)" in text
    assert text.endswith("leave no other choice: --rename head=backbone")
    assert taken(bring(tmp_path, {"state_dict": held}, renames=[("head", "backbone")]))


def test_a_network_of_another_width_is_recognised_by_its_names(tmp_path: Path) -> None:
    """Behind its prefix, so that the sizes are seen and not that all names are others."""
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def net(num_classes, in_channels, width=16):\n"
        "    layers = nn.Conv2d(in_channels, width, 3), nn.BatchNorm2d(width), nn.Flatten()\n"
        "    return nn.Sequential(*layers, nn.Linear(36 * width, num_classes))\n"
    )
    narrow = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 10))
    held = {"state_dict": under("module.", narrow.state_dict()), "epoch": 3}
    with pytest.raises(CheckpointError) as error:
        bring(tmp_path, held, architecture=f"{tmp_path}/net.py:net")
    said = str(error.value)
    assert "in state_dict behind the prefix 'module.': " in said
    assert "0.weight [8, 1, 3, 3] instead of [16, 1, 3, 3]" in said
    assert "unexpected" not in said
    assert "may be given width=16" in said


def test_renaming_other_peoples_names(tmp_path: Path) -> None:
    held = {n.replace("linear", "classifier.fc").replace("layer1", "stage1"): t for n, t in weights().items()}
    renames = [("classifier.fc", "linear"), ("stage1", "layer1")]
    loaded = bring(tmp_path, held, renames=renames)
    assert taken(loaded)
    assert loaded.manifest.notes == ("renamed classifier.fc to linear", "renamed stage1 to layer1")
    assert taken(bring(tmp_path, {f"a.{n}" if n < "l" else n: t for n, t in weights().items()}, renames=[("a", "")]))
    with pytest.raises(CheckpointError, match="no name has the part 'stage'"):
        bring(tmp_path, held, renames=[("stage", "layer")])
    with pytest.raises(CheckpointError, match=r"two tensors are named bn\.weight"):
        bring(tmp_path, weights(), renames=[("layer1.0.bn1", "bn")])


def test_a_network_of_another_project_is_paired_by_shapes(tmp_path: Path) -> None:
    """Where only the names differ, the error holds the options that import it."""
    held = {"net": {f"theirs_{n.replace('linear', 'out')}": t for n, t in weights().items()}}
    with pytest.raises(CheckpointError) as caught:
        bring(tmp_path, held)
    assert "shapes and their order agree" in str(caught.value)
    options = str(caught.value).split("--rename ")[1:]
    renames = [tuple(option.strip().split("=")) for option in options]
    assert taken(bring(tmp_path, held, renames=renames))


@pytest.mark.parametrize(
    ("dtype", "note"),
    [
        (torch.float16, "converted 28 tensors from float16 to float32, exactly"),
        (torch.bfloat16, "converted 28 tensors from bfloat16 to float32, exactly"),
        (torch.float64, "converted 28 tensors from float64 to float32, exactly"),
    ],
)
def test_other_precisions_are_converted(dtype: torch.dtype, note: str, tmp_path: Path) -> None:
    held = {name: t.to(dtype) if t.is_floating_point() else t for name, t in weights().items()}
    loaded = bring(tmp_path, held)
    state = loaded.model.network.state_dict()
    assert all(torch.equal(state[name].to(dtype), t) for name, t in held.items() if t.is_floating_point())
    count = sum(t.is_floating_point() for t in held.values())
    assert loaded.manifest.notes == (note.replace("28", str(count)),)


def test_rounding_and_counters_of_an_average(tmp_path: Path) -> None:
    held = {name: t.double() for name, t in weights().items()}
    held["linear.bias"] += 1e-12
    loaded = bring(tmp_path, held)
    assert "rounding 1 of them" in loaded.manifest.notes[0]
    assert all(t.dtype == weights()[name].dtype for name, t in loaded.model.network.state_dict().items())


def madry(mean: str = "new_mean", std: str = "new_std") -> dict[str, Any]:
    constants = {mean: CONSTANTS["mean"], std: CONSTANTS["std"]}
    return {
        "model": {
            **under("module.normalizer.", constants),
            **under("module.model."),
            **under("module.attacker.normalize.", constants),
            **under("module.attacker.model."),
        }
    }


@pytest.mark.parametrize(
    ("mean", "std"),
    [("new_mean", "new_std"), ("mu", "sigma"), ("means", "sds"), ("data_mean", "data_std"), ("_mean", "_std")],
)
def test_constants_beside_the_network_become_its_normalization(mean: str, std: str, tmp_path: Path) -> None:
    loaded = bring(tmp_path, madry(mean, std), normalization=None)
    assert taken(loaded)
    assert loaded.manifest.normalization == Normalization((0.1307,), (0.3081,))
    assert loaded.manifest.notes[0] == "took the weights in model.module.model"
    assert loaded.manifest.notes[1] == "the same weights are in model.module.attacker.model"
    assert loaded.manifest.notes[3].startswith("moved the normalization (")


def test_constants_for_bytes_are_divided_and_said(tmp_path: Path) -> None:
    constants = {"normalize.mean": torch.tensor([33.3285]), "normalize.std": torch.tensor([78.5655])}
    manifest = bring(tmp_path, constants | under("net."), normalization=None).manifest
    assert manifest.normalization == Normalization((33.3285 / 255,), (78.5655 / 255,))
    (assumed,) = manifest.assumed
    assert "is for images in 0..255" in assumed
    # whoever says the same is not told again
    assert bring(tmp_path, constants | under("net."), normalization="mnist").manifest.assumed == ()
    with pytest.raises(InvalidInput, match=r"0\.\.255, .* give --mean 0\.1307 --std 0\.3081"):
        bring(tmp_path, weights(), normalization=None, mean=(33.3285,), std=(78.5655,))


def test_two_normalizations_that_differ_are_asked_about(tmp_path: Path) -> None:
    held = under("net.") | {
        "a.mean": torch.zeros(1),
        "a.std": torch.ones(1),
        "b.mean": torch.ones(1),
        "b.std": torch.ones(1),
    }
    with pytest.raises(InvalidInput, match=r"several normalizations \(a\.mean, a\.std, b\.mean, b\.std\)"):
        bring(tmp_path, held, normalization=None)
    assert bring(tmp_path, held, normalization="mnist").manifest.normalization == Normalization((0.1307,), (0.3081,))


def test_an_architecture_with_more_than_tensors_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "extra.py").write_text(
        "from torch import nn\n"
        "class Extra(nn.Sequential):\n"
        "    def get_extra_state(self):\n        return {'steps': 3}\n"
        "    def set_extra_state(self, state):\n        pass\n"
        "def extra(classes):\n    return Extra(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    with pytest.raises(CheckpointError, match=r"more than tensors in its state dict \(_extra_state\)"):
        bring(tmp_path, nn.Linear(64, 10).state_dict(), architecture=f"{tmp_path / 'extra.py'}:extra")
