"""What is registered comes back: the same weights, the same facts, the same bytes, or nothing at all."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import checkpoints
from harness.checkpoints import Parent
from harness.checkpoints._toml import to_toml
from harness.errors import CheckpointError, InvalidInput, StorageError, UnknownName
from tests.registry.material import FACTS, registered, small

FORMATS = ["pt", "safetensors"]


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("norm_layer", ["batch", "group", "dual", "none"])
def test_round_trip(file_format: str, norm_layer: str, tmp_path: Path) -> None:
    model = small(1, norm_layer=norm_layer)
    training = {"seed": 3, "epochs": 2, "attack": {"name": "pgd", "eps": 0.15}, "flags": ["a", "b"]}
    parent = Parent(name="mother", weights_sha256="a" * 64)
    path = registered(
        tmp_path, "own", model, file_format=file_format, regime="bn-ft", parent=parent,
        training=training, trained_parameters=12, source="here", notes=["one"],
    )  # fmt: skip
    assert path == tmp_path / f"own.{file_format}"
    loaded = checkpoints.load(path)
    ours, theirs = model.network.state_dict(), loaded.model.network.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(x), loaded.model(x))
    assert not any(module.training for module in loaded.model.modules())
    manifest = loaded.manifest
    assert (manifest.name, manifest.regime, manifest.parent) == ("own", "bn-ft", parent)
    assert (manifest.architecture, manifest.norm_layer, manifest.classes) == ("digits-resnet", norm_layer, 10)
    assert (manifest.shape, manifest.normalization) == ((1, 8, 8), model.normalization)
    assert (manifest.dataset, manifest.threat) == ("digits", "Linf:0.15")
    assert (manifest.training, manifest.trained_parameters) == (training, 12)
    assert (manifest.source, manifest.notes) == ("here", ("one",))
    assert manifest.parameters == sum(p.numel() for p in model.parameters())
    assert manifest.weights_sha256 == checkpoints.weights_sha256(model)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([path.name, "own.toml"])


@pytest.mark.parametrize("file_format", FORMATS)
def test_equal_models_give_equal_bytes(file_format: str, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        registered(tmp_path / folder, model=small(2), file_format=file_format)
    for name in (f"own.{file_format}", "own.toml"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_identity_of_weights_survives_packing(tmp_path: Path) -> None:
    paths = [registered(tmp_path / f, file_format=f) for f in FORMATS]
    first, second = (checkpoints.load(path).manifest for path in paths)
    assert first.sha256 != second.sha256
    assert first.weights_sha256 == second.weights_sha256
    assert first.weights_sha256 == checkpoints.weights_sha256(small().network)


@pytest.mark.parametrize("change", ["value", "sign of zero", "name", "dtype", "shape"])
def test_identity_of_weights_sees_every_change(change: str) -> None:
    module = torch.nn.Module()
    module.register_buffer("a", torch.zeros(4))
    before = checkpoints.weights_sha256(module)
    changed = {
        "value": torch.tensor([0.0, 0, 0, 1e-45]),
        "sign of zero": torch.tensor([0.0, 0, 0, -0.0]),
        "name": torch.zeros(4),
        "dtype": torch.zeros(4, dtype=torch.int32),
        "shape": torch.zeros(2, 2),
    }[change]
    other = torch.nn.Module()
    other.register_buffer("b" if change == "name" else "a", changed)
    assert checkpoints.weights_sha256(other) != before


def test_another_checkpoint_of_that_name_is_not_replaced(tmp_path: Path) -> None:
    path = registered(tmp_path, model=small(0))
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="exists already"):
        registered(tmp_path, model=small(1))
    with pytest.raises(CheckpointError, match="exists already"):
        registered(tmp_path, model=small(1), file_format="safetensors")
    assert path.read_bytes() == before
    registered(tmp_path, model=small(0), training={"seconds": 3.5})
    assert checkpoints.load(path).manifest.training == {"seconds": 3.5}
    with pytest.raises(CheckpointError, match="exists already with other regime, notes"):
        registered(tmp_path, model=small(0), regime="natural", notes=["one"])
    registered(tmp_path, model=small(0), regime="natural", overwrite=True)
    assert checkpoints.load(path).manifest.regime == "natural"
    registered(tmp_path, model=small(1), overwrite=True)
    assert path.read_bytes() != before


@pytest.mark.parametrize("name", ["../own", "a/b", "", ".own", "a b", "own\n", "-own"])
def test_names_that_are_no_file_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected letters, digits"):
        registered(tmp_path / "inside", name)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_not_registered(tmp_path: Path) -> None:
    model = small()
    next(model.network.parameters()).data[0] = torch.nan
    with pytest.raises(CheckpointError, match="NaN"):
        registered(tmp_path, model=model)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("standing", [True, False])
def test_a_failing_write_leaves_what_was_there(
    failing: int, standing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if standing:
        registered(tmp_path, model=small(0))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    calls = iter(range(9))
    real = os.fsync

    def full(descriptor: int) -> None:
        if next(calls) == failing:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        registered(tmp_path, model=small(1), overwrite=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_failing_rename_leaves_nothing_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if target.suffix == ".toml":
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StorageError, match="Input/output error"):
        registered(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_was_killed_between_the_files_can_be_repeated(tmp_path: Path) -> None:
    path = registered(tmp_path, model=small(0))
    path.with_suffix(".toml").unlink()
    with pytest.raises(CheckpointError, match="exists already"):
        registered(tmp_path, model=small(1))
    assert registered(tmp_path, model=small(0)) == path
    assert checkpoints.load(path).path == path


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        registered(tmp_path / "file" / "inside")


def test_names_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    given_dir, home, here = tmp_path / "given", tmp_path / "home" / "checkpoints", tmp_path / "checkpoints"
    for seed, folder in enumerate((given_dir, home, here)):
        registered(folder, "searched", small(seed))
    registered(here, "only_here")
    assert checkpoints.find("searched", given_dir) == given_dir / "searched.pt"
    assert checkpoints.find("searched.pt", given_dir) == given_dir / "searched.pt"
    assert checkpoints.find("searched") == home / "searched.pt"
    monkeypatch.delenv("HARNESS_HOME")
    assert checkpoints.find("searched").resolve() == here / "searched.pt"
    registered(tmp_path, "searched", small(5))
    assert checkpoints.find("searched.pt", given_dir).resolve() == tmp_path / "searched.pt"
    assert checkpoints.find("checkpoints/searched").resolve() == here / "searched.pt"
    assert checkpoints.find(str(home / "searched.toml")) == home / "searched.pt"
    assert {"searched", "only_here"} <= {manifest.name for manifest in checkpoints.available()}
    weights = {m.name: m.weights_sha256 for m in checkpoints.available(given_dir)}
    assert weights["searched"] == checkpoints.weights_sha256(small(0))


def test_unknown_names_and_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    registered(tmp_path, "natural_one")
    with pytest.raises(UnknownName, match="did you mean 'natural_one'"):
        checkpoints.find("naturalone", tmp_path)
    with pytest.raises(CheckpointError, match=r"no such checkpoint: .*nothing\.pt \(the folder holds natural_one\.pt"):
        checkpoints.find(tmp_path / "nothing.pt")
    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoints.find("natural_one", tmp_path / "nowhere")


def test_one_bad_manifest_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("bad_one", "good_one"):
        registered(tmp_path, name)
    (tmp_path / "bad_one.toml").write_text("[[[")
    with pytest.warns(UserWarning, match="left out: .*bad_one.toml is not valid TOML"):
        names = {manifest.name for manifest in checkpoints.available(tmp_path)}
    assert "good_one" in names
    assert "bad_one" not in names


def test_every_available_checkpoint_loads() -> None:
    for manifest in checkpoints.available():
        assert checkpoints.load(manifest.name).manifest == manifest


def test_a_manifest_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    path = registered(tmp_path)
    beside = checkpoints.manifest_path(path)
    text = beside.read_text(encoding="utf-8")
    for before, after, message in [
        ("architecture =", "architectur =", "unknown field 'architectur'.*did you mean 'architecture'"),
        ('architecture = "digits-resnet"\n', "", "field 'architecture' is missing"),
        ("classes = 10", "classes = 1", "classes: .*greater than or equal to 2, got 1"),
        ("schema = 1", "schema = 2", "reads up to 1: upgrade"),
        ('file = "own.pt"', 'file = "../own.pt"', "file: expected a file name"),
        ('file = "own.pt"', 'file = "else.pt"', "names the file 'else.pt', expected own.pt"),
        ("std = [0.4]", "std = [0.0]", "deviations are positive"),
        ("std = [0.4]", "deviation = [0.4]", "expected mean and std"),
        ('threat = "Linf:0.15"', 'threat = "Linf:8/0"', "divides by zero"),
        ("shape = [1, 8, 8]", "shape = [1, 8, 0]", "shape: expected channels"),
        ("shape = [1, 8, 8]", "shape = [1, 8", "not valid TOML"),
    ]:
        assert before in text
        beside.write_text(text.replace(before, after), encoding="utf-8")
        with pytest.raises(CheckpointError, match=message) as caught:
            checkpoints.load(path)
        assert "\n" not in str(caught.value)


def test_a_manifest_must_agree_with_the_weights(tmp_path: Path) -> None:
    path = registered(tmp_path)
    beside = checkpoints.manifest_path(path)
    manifest = checkpoints.read_manifest(beside)
    for update, message in [
        ({"sha256": "0" * 64}, "sha256 is .*, expected 000000000000"),
        ({"weights_sha256": "0" * 64}, "another hash"),
        ({"parameters": 5}, "its manifest says 5"),
    ]:
        beside.write_text(manifest.model_copy(update=update).to_toml(), encoding="utf-8")
        with pytest.raises(CheckpointError, match=message):
            checkpoints.load(path)
    beside.unlink()
    with pytest.raises(CheckpointError, match="harness import"):
        checkpoints.load(path)


def test_a_user_architecture_is_found_beside_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness import models

    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    code = "from torch import nn\ndef net(classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    (tmp_path / "a" / "mine.py").write_text(code)
    model = models.build("mine.py:net", classes=10, shape=(1, 8, 8), seed=0)
    path = checkpoints.save(model, directory=tmp_path / "a", name="mine", **FACTS)
    monkeypatch.chdir(tmp_path)
    assert checkpoints.weights_sha256(checkpoints.load(path).model) == checkpoints.weights_sha256(model)


_VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab.é"\n\x7f', max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), _VALUES, max_size=5))
def test_toml_is_read_back_as_it_was_written(table: dict[str, Any]) -> None:
    assert repr(tomllib.loads(to_toml(table))) == repr(_tables_last(table))


def _tables_last(table: dict[str, Any]) -> dict[str, Any]:
    # the order in which TOML lets a table be written
    plain = {name: value for name, value in table.items() if not isinstance(value, dict)}
    return plain | {name: _tables_last(value) for name, value in table.items() if isinstance(value, dict)}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), [None]])
def test_toml_refuses_what_it_cannot_hold(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"training\.x must be"):
        to_toml({"training": {"x": value}})
