"""``harness cka``: what is compared, printed and written."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from harness import checkpoints, models
from tests.cli.conftest import Harness
from tests.registry.material import registered, small

COMMAND = ("cka", "natural", "bn_ft", "--limit", "60", "--steps", "3")


def test_files_and_figures(harness: Harness, folder: Path) -> None:
    code, out, err = harness(*COMMAND)
    assert code == 0
    assert "natural and bn_ft on 60 digits test images; adversarial ones by PGD-3 against each model itself" in out
    assert "Linf 0.15" in out
    assert "crafting adversarial images against the second model" in err
    written = sorted(path.name for path in (folder / "cka").iterdir())
    stem = "natural__bn_ft__digits"
    assert written == [f"{stem}.png", f"{stem}__adversarial.csv", f"{stem}__clean.csv"]
    for inputs in ("clean", "adversarial"):
        rows = list(csv.reader((folder / "cka" / f"{stem}__{inputs}.csv").open()))
        assert rows[0] == ["layer", "conv1", "layer1.0", "layer2.0", "layer3.0", "bn", "logits"]
        assert len(rows) == 7
        assert all(0 <= float(value) <= 1 for row in rows[1:] for value in row[1:])
    # the convolution before the first BN layer is the parent's
    clean = list(csv.reader((folder / "cka" / f"{stem}__clean.csv").open()))
    assert float(clean[1][1]) == pytest.approx(1, abs=1e-6)


def test_json(harness: Harness, folder: Path) -> None:
    command = (*COMMAND, "--output", "here", "--seed", "2", "--json")
    code, out, _ = harness(*command)
    assert code == 0
    printed = json.loads(out)
    wanted = {"a": "natural", "b": "bn_ft", "dataset": "digits", "n": 60, "seed": 2, "threat": "Linf:0.15", "steps": 3}
    assert {key: printed[key] for key in wanted} == wanted
    assert printed["weights"][0] == checkpoints.load("natural").manifest.weights_sha256
    assert [one["inputs"] for one in printed["similarities"]] == ["clean", "adversarial"]
    assert all(np.array(one["matrix"]).shape == (6, 6) for one in printed["similarities"])
    assert set(printed["files"]) == {"clean", "adversarial", "picture"}
    assert all((folder / path).is_file() for path in printed["files"].values())
    assert json.loads(harness(*command).out) == printed


def test_clean_images_only(harness: Harness) -> None:
    printed = json.loads(harness(*COMMAND, "--clean-only", "--json").out)
    assert (printed["threat"], list(printed["files"])) == (None, ["clean", "picture"])


def test_another_threat_model(harness: Harness) -> None:
    printed = json.loads(harness(*COMMAND, "--norm", "l2", "--eps", "1/2", "--json").out)
    assert printed["threat"] == "L2:1/2"
    outcome = harness(*COMMAND, "--eps", "0.3", "--eps-units", "normalized", "--json")
    assert "warning: natural: eps 0.3 was given in normalised units" in outcome.err
    assert json.loads(outcome.out)["threat"] == "Linf:0.11274"


def test_other_architectures(harness: Harness, folder: Path) -> None:
    lenet = models.build("lenet5", classes=10, shape=(1, 8, 8), seed=0).eval()
    registered(folder / "checkpoints", "lenet", lenet)
    code, out, _ = harness("cka", "natural", "lenet", "--limit", "30", "--clean-only")
    assert code == 0
    assert "most similar of lenet" in out


def test_asked_wrongly(harness: Harness, folder: Path) -> None:
    harness("cka", "natural").refused("B", code=2)
    harness("cka", "natural", "nothing").refused("unknown checkpoint 'nothing'")
    harness(*COMMAND, "--limit", "1").refused("--limit", code=2)
    harness(*COMMAND, "--eps-units", "normalized").refused("--eps", code=2)
    harness(*COMMAND, "--norm", "L2").refused("L2", "--eps")
    model = models.build("resnet20", classes=10, shape=(3, 16, 16), seed=0).eval()
    registered(folder / "checkpoints", "colour", model)
    harness("cka", "natural", "colour").refused("colour takes images of shape [3, 16, 16]", "[1, 8, 8]")
    registered(folder / "checkpoints", "unknown", small(), dataset=None)
    harness("cka", "unknown", "natural").refused("names no data set", "--dataset")
    (folder / "file").write_text("")
    harness(*COMMAND, "--output", "file").refused("is not a folder", "--output")
