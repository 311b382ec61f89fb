"""``harness import`` and ``harness inspect``, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness import checkpoints, models
from harness.cli import run
from tests.registry.material import packed, registered, small, weights
from tests.registry.test_lineage import family, flip, train_bn

DESCRIBED = ["--architecture", "digits-resnet", "--dataset", "digits"]


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_HOME", raising=False)
    (tmp_path / "foreign.pt").write_bytes(packed({"state_dict": weights()}))
    return "foreign.pt"


def test_import_registers_in_the_current_folder(foreign: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", foreign, "--name", "own", *DESCRIBED, "--mean", "0.5", "--std", "0.25"]) == 0
    out = capsys.readouterr().out
    assert "registered own as checkpoints/own.pt" in out
    manifest = checkpoints.load("own").manifest
    assert manifest.normalization is not None
    assert (manifest.normalization.mean, manifest.normalization.std) == ((0.5,), (0.25,))


def test_import_into_the_home_as_json(
    foreign: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    args = ["import", foreign, "--name", "own", "--architecture", "digits-resnet", "--classes", "10"]
    assert run([*args, "--shape", "1x8x8", "--normalization", "none", "--threat", "L2:0.5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert Path(told["path"]) == tmp_path / "home" / "checkpoints" / "own.pt"
    assert (told["name"], told["threat"], told["shape"], told["schema"]) == ("own", "L2:0.5", [1, 8, 8], 1)


def test_one_number_stands_for_all_channels(tmp_path: Path) -> None:
    (tmp_path / "foreign.pt").write_bytes(packed(models.build("resnet20", classes=10, shape=(3, 32, 32)).state_dict()))
    facts: dict[str, Any] = {"architecture": "resnet20", "dataset": "cifar10", "mean": [0.5], "std": [0.25]}
    path = checkpoints.import_file(tmp_path / "foreign.pt", name="own", directory=tmp_path, **facts, norm_layer="batch")
    manifest = checkpoints.read_manifest(checkpoints.manifest_path(path))
    assert manifest.normalization == models.Normalization((0.5,) * 3, (0.25,) * 3)


def test_several_files_are_called_by_their_own_names(
    foreign: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(2):
        (tmp_path / f"run-{seed}.v2.pth").write_bytes(packed(weights(small(seed))))
    (tmp_path / "broken.pth").write_bytes(b"none")
    command = ["import", "run-0.v2.pth", "broken.pth", "run-1.v2.pth", *DESCRIBED, "--normalization", "none"]
    assert run(command) == 1
    out, err = capsys.readouterr()
    assert out.count("registered run-") == 2
    assert err.startswith("error: broken.pth cannot be imported: ")
    for seed in range(2):
        loaded = checkpoints.load(f"run-{seed}.v2")
        assert checkpoints.weights_sha256(loaded.model) == checkpoints.weights_sha256(small(seed))
    assert run([*command, "--overwrite", "--json"]) == 1
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == ["run-0.v2", "run-1.v2"]
    assert run(["import", foreign, *DESCRIBED, "--normalization", "none"]) == 0
    assert checkpoints.find("foreign").name == "foreign.pt"


def test_the_model_says_the_size_where_photographs_have_many(
    foreign: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in range(10):
        (tmp_path / "photos" / str(label)).mkdir(parents=True)
        Image.new("L", (20 + label, 18)).save(tmp_path / "photos" / str(label) / "one.png")
    command = ["import", foreign, "--architecture", "digits-resnet", "--dataset", "photos", "--normalization", "none"]
    assert run(command) == 1
    assert "--shape that the model takes" in capsys.readouterr().err
    assert run([*command, "--shape", "1,8,8"]) == 0
    assert "clean accuracy on 10 photos images" in capsys.readouterr().out
    assert checkpoints.load("foreign").manifest.shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["nothing.pt", "--name", "own", *DESCRIBED], 1, "no such file"),
        (["foreign.pt", "--name", "own", *DESCRIBED], 1, "--normalization none|cifar10"),
        (["foreign.pt", "--name", "a/b", *DESCRIBED, "--normalization", "none"], 1, "expected letters"),
        (["foreign.pt", "other.pt", "--name", "own", *DESCRIBED], 2, "by their own names"),
        (["hf:org/repo", *DESCRIBED], 2, "with --name"),
        (["foreign.pt", "--name", "own", *DESCRIBED, "--mean", "a,b"], 2, "expected numbers"),
        (["foreign.pt", "--name", "own", *DESCRIBED, "--shape", "8,8"], 2, "channels, height and width"),
    ],
)
def test_import_refuses_in_one_line(
    args: list[str], code: int, message: str, foreign: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["import", *args]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not Path("checkpoints").exists()


def test_inspect_shows_layers_and_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    child, _ = family(tmp_path, train_bn, trained_parameters=500)
    assert run(["inspect", str(child.path)]) == 0
    out = capsys.readouterr().out
    for text in (
        "digits-resnet",
        "bn-ft",
        "since mother:",
        "all of them normalise with their stored",
        "this change is",
    ):
        assert text in out
    rows = {line.split()[0]: line for line in out.splitlines() if " of " in line}
    convolutions = next(line for name, line in rows.items() if name == "convolutions")
    assert " 0 of " in convolutions
    assert "consistent: nothing moved since mother but what bn-ft trains" in out


def test_inspect_as_json_names_every_changed_tensor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    child, _ = family(tmp_path, lambda model: flip(model.network.state_dict()["conv1.weight"]))
    assert run(["inspect", str(child.path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["lineage"]["status"] == "contradicted"
    assert told["lineage"]["difference"]["changed"] == ["conv1.weight"]
    assert told["manifest"]["name"] == "child"
    assert told["bn_layers"][0]["gamma"]["min"] == 1
    assert 0 < told["lineage"]["difference"]["changed_share"] < 1


def test_inspect_against_another_parent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    child, mother = family(tmp_path, train_bn, parent=None, regime=None)
    args = ["inspect", "child", "--checkpoint-dir", str(tmp_path)]
    assert run(args) == 0
    assert "since" not in capsys.readouterr().out
    assert run([*args, "--parent", "mother"]) == 0
    assert "this change is consistent with: bn-ft" in capsys.readouterr().out
    other = registered(tmp_path, "other", small(architecture="resnet20"))
    assert run([*args, "--parent", str(other)]) == 1
    assert "cannot be compared" in capsys.readouterr().err
    assert child.path.parent == mother.path.parent


def test_inspect_of_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registered(tmp_path, "own")
    assert run(["inspect", "owm", "--checkpoint-dir", str(tmp_path)]) == 1
    assert "did you mean 'own'" in capsys.readouterr().err
