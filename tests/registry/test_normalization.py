"""An import says which normalisation it took, and how accurate the network is under it and under others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from harness import checkpoints, datasets, models
from harness.checkpoints import compare_normalizations
from harness.cli import run
from harness.errors import InvalidInput
from harness.models import Model, Normalization

SHIPPED = checkpoints.load("natural")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path))
    torch.save(SHIPPED.model.network.state_dict(), "natural.pth")
    return "natural.pth"


IMPORT = ["--name", "own", "--architecture", SHIPPED.manifest.architecture, "--dataset", "digits"]


def constants() -> list[str]:
    own = SHIPPED.model.normalization
    assert own is not None
    return ["--mean", ",".join(map(str, own.mean)), "--std", ",".join(map(str, own.std))]


def test_the_right_one_is_shown_first(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", file, *IMPORT, *constants()]) == 0
    out = capsys.readouterr().out
    assert "  normalization: mean [" in out
    assert "  clean accuracy on 200 digits images by normalization: as registered 9" in out
    assert "warning" not in out
    assert run(["import", file, *IMPORT, *constants(), "--json"]) == 0
    accuracies = json.loads(capsys.readouterr().out)["clean_by_normalization"]["accuracies"]
    assert set(accuracies) == {"as registered", "none", "mnist"}
    assert accuracies["as registered"] > 0.9


def test_a_wrong_one_is_said(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", file, *IMPORT, "--mean", "-3", "--std", "0.1"]) == 0
    assert "is clearly more accurate than the normalization that was taken" in capsys.readouterr().out


def test_where_none_is_known_the_error_shows_the_accuracies(file: str) -> None:
    with pytest.raises(InvalidInput, match=r"give --normalization .* \(clean accuracy on 200 digits images"):
        checkpoints.import_file(
            file, name="own", directory=".", architecture=SHIPPED.manifest.architecture, dataset="digits"
        )


def test_images_that_are_not_at_hand_are_no_error(tmp_path: Path) -> None:
    model = models.build("resnet20", classes=10, shape=(3, 32, 32), seed=0)
    assert compare_normalizations(model, "cifar10", data_dir=tmp_path) is None
    assert compare_normalizations(model, None) is None
    assert compare_normalizations(model, "digits") is None


def test_accuracy_is_that_of_the_whole_model() -> None:
    data = datasets.load("digits", limit=200)
    compared = compare_normalizations(SHIPPED.model, "digits")
    assert compared is not None
    with torch.no_grad():
        right = float((SHIPPED.model(data.x).argmax(1) == data.y).double().mean())
    assert compared.accuracies[str(compared.chosen)] == right


def test_a_source_s_own_is_taken_and_said_to_be_assumed(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    network = models.build("timm:resnet10t", classes=10, shape=(3, 64, 64), seed=0).network
    torch.save(network.state_dict(), tmp_path / "w.pth")
    about = {"architecture": "timm:resnet10t", "classes": 10, "shape": (3, 64, 64)}
    path = checkpoints.import_file(tmp_path / "w.pth", name="own", directory=tmp_path, **about)
    manifest = checkpoints.load(path).manifest
    assert manifest.normalization == Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert "as timm does for timm:resnet10t" in manifest.assumed[0]
    told = checkpoints.import_file(
        tmp_path / "w.pth", name="told", directory=tmp_path, normalization="imagenet", **about
    )
    assert checkpoints.load(told).manifest.assumed == ()


def test_the_usual_normalization_is_none_of_a_model_s_own() -> None:
    model: Model = models.build("resnet20", classes=10, shape=(3, 32, 32), seed=0)
    assert model.usual_normalization is None
