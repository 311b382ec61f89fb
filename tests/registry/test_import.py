"""Registering foreign weights: whatever they come wrapped in, and never more leniently than that."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from harness import checkpoints, datasets
from harness.errors import CheckpointError, HarnessError, InvalidInput, UnknownName
from harness.models import Normalization
from tests.registry.material import packed, registered, small, weights
from tests.support import SHARED

DESCRIBED: dict[str, Any] = {"architecture": "digits-resnet", "dataset": "digits", "normalization": "none"}


def bring(folder: Path, content: bytes, *, suffix: str = ".pt", **facts: Any) -> Path:
    file = folder / f"foreign{suffix}"
    file.write_bytes(content)
    return checkpoints.import_file(file, name="own", directory=folder / "registry", **(DESCRIBED | facts))


def under(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in weights().items()}


WRAPPED: dict[str, Callable[[], Any]] = {
    "plain": weights,
    "ordered": lambda: OrderedDict(weights()),
    "state_dict": lambda: {"epoch": 3, "state_dict": weights(), "optimizer": {"lr": 0.1}},
    "model": lambda: {"model": weights(), "best": 0.5},
    "net": lambda: {"net": weights(), "acc": 90},
    "model_state_dict": lambda: {"model_state_dict": weights(), "optimizer_state_dict": {"state": {0: torch.ones(2)}}},
    "state_dict in model": lambda: {"model": {"state_dict": weights()}},
    "module.": lambda: under("module."),
    "module.model.": lambda: {"state_dict": under("module.model.")},
    "_orig_mod.": lambda: under("_orig_mod."),
    "model.network.": lambda: under("model.network."),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_wrappers_are_taken_off(wrapper: str, tmp_path: Path) -> None:
    content = packed(WRAPPED[wrapper]())
    path = bring(tmp_path, content)
    loaded = checkpoints.load(path)
    assert checkpoints.weights_sha256(loaded.model) == checkpoints.weights_sha256(small())
    assert loaded.manifest.source == "foreign.pt"
    assert loaded.manifest.source_sha256 == hashlib.sha256(content).hexdigest()
    assert bool(loaded.manifest.notes) == (wrapper.endswith("."))


def test_legacy_files_and_safetensors(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "old.th", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(weights(), tmp_path / "new.safetensors")
    for file in ("old.th", "new.safetensors"):
        path = checkpoints.import_file(tmp_path / file, name=file[:3], directory=tmp_path / "r", **DESCRIBED)
        assert checkpoints.load(path).manifest.weights_sha256 == checkpoints.weights_sha256(small())


def test_several_sets_of_weights_must_be_chosen_from(tmp_path: Path) -> None:
    content = packed({"model": weights(), "ema": weights(small(1))})
    with pytest.raises(CheckpointError, match=r"fit and differ \(ema, model\): say which"):
        bring(tmp_path, content)
    loaded = checkpoints.load(bring(tmp_path, content, entry="ema"))
    assert loaded.manifest.weights_sha256 == checkpoints.weights_sha256(small(1))
    assert "took the weights in ema" in loaded.manifest.notes
    with pytest.raises(CheckpointError, match="no entry 'emma', it has ema, model"):
        bring(tmp_path, content, entry="emma")


def test_the_data_set_says_classes_shape_and_threat(tmp_path: Path) -> None:
    manifest = checkpoints.load(bring(tmp_path, packed(weights()))).manifest
    assert (manifest.dataset, manifest.classes, manifest.shape) == ("digits", 10, (1, 8, 8))
    assert manifest.threat == "Linf:0.15"
    assert manifest.regime is None
    assert manifest.parent is None


def test_missing_facts_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="give --architecture, --classes, --shape"):
        bring(tmp_path, packed(weights()), architecture=None, dataset=None)
    with pytest.raises(InvalidInput, match="how its images are normalised: give --normalization none"):
        bring(tmp_path, packed(weights()), normalization=None)
    with pytest.raises(UnknownName, match="did you mean 'cifar10'"):
        bring(tmp_path, packed(weights()), normalization="cifar-10")
    with pytest.raises(InvalidInput, match="needs both mean and std"):
        bring(tmp_path, packed(weights()), normalization=None, mean=(0.5,))
    with pytest.raises(InvalidInput, match="not both"):
        bring(tmp_path, packed(weights()), mean=(0.5,), std=(0.5,))
    with pytest.raises(HarnessError, match="has 3 channels and the images have 1"):
        bring(tmp_path, packed(weights()), normalization="imagenet")
    assert not (tmp_path / "registry").exists()


def test_normalization_given_in_numbers(tmp_path: Path) -> None:
    path = bring(tmp_path, packed(weights()), normalization=None, mean=(0.5,), std=(0.25,))
    model = checkpoints.load(path).model
    assert model.normalization == Normalization((0.5,), (0.25,))
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(model(x), model.network((x - 0.5) / 0.25))


class _Constants(nn.Module):
    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, 1, 1, 1), mean))
        self.register_buffer("std", torch.full((1, 1, 1, 1), std))


@pytest.mark.parametrize("style", ["attribute", "sequential"])
def test_constants_in_the_file_become_the_normalization(style: str, tmp_path: Path) -> None:
    constants = _Constants(0.1307, 0.3081).state_dict()
    names = ("normalize.", "module.") if style == "attribute" else ("0.", "1.")
    held = {names[0] + n: t for n, t in constants.items()} | under(names[1])
    path = bring(tmp_path, packed(held), normalization=None)
    loaded = checkpoints.load(path)
    assert loaded.manifest.normalization == Normalization((0.1307,), (0.3081,))
    assert loaded.manifest.weights_sha256 == checkpoints.weights_sha256(small())
    assert any("normalization" in note for note in loaded.manifest.notes)
    bring(tmp_path, packed(held), normalization="mnist")
    for other in ("none", Normalization((0.5,), (0.5,))):
        with pytest.raises(InvalidInput, match=r"normalises by mean \[0\.1307\] and std \[0\.3081\]"):
            bring(tmp_path, packed(held), normalization=other)


def test_batch_counters_are_settled_explicitly(tmp_path: Path) -> None:
    counters = [name for name in weights() if name.endswith("num_batches_tracked")]
    old = {name: tensor for name, tensor in weights().items() if name not in counters}
    loaded = checkpoints.load(bring(tmp_path, packed(old)))
    assert f"set {len(counters)} missing BN batch counters to zero" in loaded.manifest.notes
    state = loaded.model.network.state_dict()
    assert all(state[name] == 0 and state[name].dtype == torch.int64 for name in counters)
    surplus = weights(small(norm_layer="none")) | {"bn1.num_batches_tracked": torch.tensor(4)}
    loaded = checkpoints.load(bring(tmp_path, packed(surplus), norm_layer="none", overwrite=True))
    assert "left out 1 tensor that the architecture lacks (bn1.num_batches_tracked)" in loaded.manifest.notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: dict(list(w.items())[1:]), r"1 missing \(conv1\.weight\)"),
        (lambda w: w | {"conv1.weight": w["conv1.weight"].to(torch.int32)}, "int32 instead of float32"),
        (lambda w: w | {"conv1.weight": torch.zeros(16, 3, 3, 3)}, r"\[16, 3, 3, 3\] instead of \[16, 1, 3, 3\]"),
        (lambda w: w | {"conv1.weight": torch.full((16, 1, 3, 3), torch.nan)}, "NaN"),
        (lambda w: w | {"conv1.weight": 1.0}, r"1 missing \(conv1\.weight\); conv1\.weight is a value of type float"),
        (lambda w: list(w.values()), r"39 missing .* 46 unexpected"),
        (
            lambda w: {"weights": {f"other{name}": t for name, t in w.items()}},
            "in weights: 39 missing .* 46 unexpected",
        ),
        (lambda w: torch.zeros(3), "holds a tensor, expected a dictionary"),
        (lambda w: {"epoch": 3}, r"holds no tensors \(epoch is a value of type int\)"),
    ],
)
def test_what_does_not_fit_is_listed(change: Callable[[dict[str, Tensor]], Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        bring(tmp_path, packed(change(weights())))
    assert not (tmp_path / "registry").exists()


def test_another_architecture_or_number_of_classes(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not fit the architecture lenet5"):
        bring(tmp_path, packed(weights()), architecture="lenet5", dataset="mnist")
    with pytest.raises(CheckpointError, match=r"instead of \[7, "):
        bring(tmp_path, packed(weights()), classes=7)
    with pytest.raises(UnknownName, match="did you mean 'digits-resnet'"):
        bring(tmp_path, packed(weights()), architecture="digit-resnet")


def test_a_user_architecture_and_one_that_lies(tmp_path: Path) -> None:
    code = """
from torch import nn
class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.fc = nn.Linear(64, classes)
    def forward(self, x):
        return {result}
"""
    (tmp_path / "net.py").write_text(code.format(result="self.fc(x.flatten(1))"))
    (tmp_path / "bad.py").write_text(code.format(result="self.fc(x.flatten(1))[:1]"))
    (tmp_path / "nan.py").write_text(code.format(result="self.fc(x.flatten(1)) / 0"))
    (tmp_path / "fails.py").write_text(code.format(result="self.fc(x)"))
    content = packed(nn.Linear(64, 10).state_dict())
    content = packed({f"fc.{n}": t for n, t in torch.load(_file(tmp_path, content), weights_only=True).items()})
    loaded = checkpoints.load(bring(tmp_path, content, architecture=f"{tmp_path}/net.py:Net"))
    assert loaded.model(torch.rand(5, 1, 8, 8)).shape == (5, 10)
    for file, message in [("bad", r"two images gave \[1, 10\]"), ("nan", "NaN"), ("fails", "does not take images")]:
        with pytest.raises(CheckpointError, match=message):
            bring(tmp_path, content, architecture=f"{tmp_path}/{file}.py:Net")


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "linear.pt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("file_format", ["pt", "safetensors"])
def test_our_own_files_say_what_they_are(file_format: str, tmp_path: Path) -> None:
    path = registered(tmp_path / "a", regime="natural", file_format=file_format)
    before = checkpoints.load(path).manifest
    checkpoints.manifest_path(path).unlink()
    copy = checkpoints.import_file(path, name="own", directory=tmp_path / "b")
    after = checkpoints.load(copy).manifest
    for field in ("weights_sha256", "architecture", "shape", "normalization", "regime", "dataset", "threat"):
        assert getattr(after, field) == getattr(before, field), field


def test_a_file_is_not_asked_whose_code_to_run(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    metadata = {"name": "x", "architecture": f"{tmp_path}/evil.py:net", "classes": 10, "shape": [1, 8, 8]}
    with pytest.raises(InvalidInput, match="give --architecture"):
        bring(tmp_path, packed({"state_dict": weights(), "metadata": metadata}), architecture=None)
    assert not (tmp_path / "sprung").exists()
    foreign = bring(tmp_path, packed({"state_dict": weights(), "metadata": {"shap": 1}}))
    assert checkpoints.load(foreign).manifest.shape == (1, 8, 8)


def test_parents_are_referred_to_by_their_weights(tmp_path: Path) -> None:
    mother = registered(tmp_path / "registry", "mother")
    path = bring(tmp_path, packed(weights(small(1))), parent="mother", checkpoint_dir=tmp_path / "registry")
    parent = checkpoints.load(path).manifest.parent
    assert parent == checkpoints.load(mother).as_parent()
    with pytest.raises(UnknownName, match="did you mean 'mother'"):
        bring(tmp_path, packed(weights()), parent="mothr", checkpoint_dir=tmp_path / "registry")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        checkpoints.import_file(tmp_path / "nothing.pt", name="own", directory=tmp_path, **DESCRIBED)


SHARED_MODELS = {
    "cifar10_resnet20_natural.th": ("resnet20", "imagenet", "cifar10", 0.9173),
    "mnist_lenet5_advtrained.pt": ("lenet5", "none", "mnist", 1.0),
    "resnet32_natural.pt": ("leaky-resnet32", "cifar10", "cifar10", 0.9397),
    "resnet32_at_all.pt": ("leaky-resnet32", "cifar10", "cifar10", 0.8144),
    "resnet32_at_then_nt_init_block1.pt": ("leaky-resnet32", "cifar10", "cifar10", 0.9019),
    "resnet32_at_then_nt_init_block3.pt": ("leaky-resnet32", "cifar10", "cifar10", 0.8345),
    "resnet32_nt_then_at_lastbn_linear.pt": ("leaky-resnet32", "cifar10", "cifar10", 0.7541),
    "resnet32_nt_then_at_block3_linear.pt": ("leaky-resnet32", "cifar10", "cifar10", 0.7825),
    "resnet32_nt_then_at_init_block1.pt": ("leaky-resnet32", "cifar10", "cifar10", 0.4693),
    "resnet32_nt_then_at_init_block3.pt": ("leaky-resnet32", "cifar10", "cifar10", 0.8156),
}


def bring_shared(name: str, folder: Path) -> Path:
    architecture, normalization, dataset, _ = SHARED_MODELS[name]
    return checkpoints.import_file(
        SHARED / "models" / name,
        name=Path(name).stem,
        directory=folder,
        architecture=architecture,
        normalization=normalization,
        dataset=dataset,
    )


@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="no shared models")
@pytest.mark.parametrize("name", SHARED_MODELS)
def test_shared_models_are_imported(name: str, tmp_path: Path) -> None:
    loaded = checkpoints.load(bring_shared(name, tmp_path))
    assert loaded.manifest.architecture == SHARED_MODELS[name][0]


@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="no shared models")
@pytest.mark.parametrize(
    ("name", "data", "n"),
    [
        ("cifar10_resnet20_natural.th", "cifar10_test_600.npz", 600),
        ("mnist_lenet5_advtrained.pt", "mnist_test.npz", 50),
    ],
)
def test_shared_models_are_as_accurate_as_known(name: str, data: str, n: int, tmp_path: Path) -> None:
    model = checkpoints.load(bring_shared(name, tmp_path)).model
    images = datasets.load(SHARED / "data" / data, limit=n)
    with torch.no_grad():
        predicted = torch.cat([model(x) for x in images.x.split(100)]).argmax(dim=1)
    accuracy = (predicted == images.y).double().mean().item()
    assert abs(accuracy - SHARED_MODELS[name][3]) <= 0.01
