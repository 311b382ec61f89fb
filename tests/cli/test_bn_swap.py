"""``harness bn-swap``: what is evaluated, printed and written."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from harness import checkpoints, evaluation, models
from harness.audit.flags import define
from harness.models import Model
from harness.results.record import Verdicts
from tests.cli.conftest import Harness
from tests.registry.material import registered, small

pytestmark = pytest.mark.usefixtures("unaudited")

COMMAND = ("bn-swap", "natural", "bn_ft", "--limit", "20", "--suite", "fgsm", "--workers", "1")


def test_json_and_files(harness: Harness, folder: Path) -> None:
    code, out, err = harness(*COMMAND, "--path-points", "3", "--output", "here", "--json")
    assert code == 0
    assert "evaluating: from bn_ft: gamma + beta" in err
    printed = json.loads(out)
    wanted = {"a": "natural", "b": "bn_ft", "suite": "fgsm", "n": 20, "seed": 0, "threat": "Linf:0.15"}
    assert {key: printed[key] for key in wanted} == wanted
    assert printed["weights"][1] == checkpoints.load("bn_ft").manifest.weights_sha256
    assert printed["rest_equal"] is True
    assert len(printed["rows"]) == 19
    assert [one["measure"] for one in printed["attributions"]] == ["clean", "robust"]
    robust = printed["attributions"][1]
    total = sum(effect["share"][0] for effect in robust["effects"])
    assert total == pytest.approx(robust["gain"][0])
    assert robust["after"] - robust["before"] == pytest.approx(robust["gain"][0])
    assert printed["files"] == {
        "table": "here/natural__bn_ft__digits.csv",
        "picture": "here/natural__bn_ft__digits.png",
    }
    assert sorted(path.name for path in (folder / "here").iterdir()) == [
        "natural__bn_ft__digits.csv",
        "natural__bn_ft__digits.png",
    ]
    rows = list(csv.DictReader((folder / printed["files"]["table"]).open()))
    assert [row["kind"] for row in rows] == ["combination"] * 16 + ["path"] * 3


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("bn_ft", "A and B are equal outside of their BN layers"),
        ("bn_head_ft", "A and B differ in more than BN: B itself is a row of its own"),
    ],
)
def test_for_people(harness: Harness, folder: Path, monkeypatch: pytest.MonkeyPatch, other: str, said: str) -> None:
    monkeypatch.setattr(evaluation, "examine", _at_once)
    asked = ("--limit", "20", "--suite", "clean", "--path-points", "0")
    code, out, _ = harness("bn-swap", "natural", other, *asked)
    assert code == 0
    assert f"BN values of {other} in natural: 20 digits test images, clean, Linf:0.15, seed 0" in out
    assert said in out
    assert ("B itself  " in out) is (other == "bn_head_ft")
    assert "gamma + beta + mean + variance" in out
    assert "all BN values of B change A by" in out
    written = sorted(path.name for path in (folder / "bn-swap").iterdir())
    assert written == [f"natural__{other}__digits.csv", f"natural__{other}__digits.png"]


def _at_once(model: Model, x: Tensor, y: Tensor, **_: Any) -> Any:
    """What the clean suite finds, without an audit of every network."""
    predicted = model(x).argmax(1).numpy()
    none, right = np.full(len(y), -1), predicted == y.numpy()
    passes = np.ones(len(y), dtype=np.int64)
    verdicts = Verdicts(np.arange(len(y)), y.numpy(), predicted, right, none, predicted, passes, 0 * passes)
    return SimpleNamespace(verdicts=verdicts, result=SimpleNamespace(flags=()))


def test_flags_name_the_mixtures_that_raised_them(
    harness: Harness, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubt = define("of-a-test", "warn", "a doubt", "odd")
    networks = iter(range(100))

    def examine(model: Model, x: Tensor, y: Tensor, **more: Any) -> Any:
        done = _at_once(model, x, y, **more)
        done.result.flags = (doubt(),) if next(networks) in (1, 4, 5, 6, 7, 8, 9) else ()
        return done

    monkeypatch.setattr(evaluation, "examine", examine)
    asked = ("bn-swap", "natural", "bn_ft", "--limit", "20", "--suite", "clean", "--path-points", "0")
    _, out, err = harness(*asked, "--json")
    (flag,) = json.loads(out)["flags"]
    labels = [line.partition("evaluating: from bn_ft: ")[2] for line in err.splitlines()]
    assert flag["mixtures"] == [labels[place] for place in (1, 4, 5, 6, 7, 8, 9)]
    networks = iter(range(100))
    named = "; ".join(flag["mixtures"][:4])
    assert f"warning: odd (flag of-a-test), from B: {named} and 3 more" in harness(*asked).out


def test_asked_wrongly(harness: Harness, folder: Path) -> None:
    harness("bn-swap", "natural").refused("B", code=2)
    harness("bn-swap", "natural", "nothing").refused("unknown checkpoint 'nothing'")
    harness("bn-swap", "natural", "natural").refused("equal to the last bit")
    harness(*COMMAND, "--suite", "nothing").refused("unknown suite 'nothing'")
    harness(*COMMAND, "--path-points", "1").refused("at least 2 points")
    harness(*COMMAND, "--eps-units", "normalized").refused("--eps", code=2)
    lenet = models.build("lenet5", classes=10, shape=(1, 8, 8), seed=0).eval()
    registered(folder / "checkpoints", "lenet", lenet)
    harness("bn-swap", "natural", "lenet").refused("lenet5", "choose two checkpoints of one architecture")
    harness("bn-swap", "lenet", "lenet").refused("has no BN layer")
    registered(folder / "checkpoints", "unknown", small(), dataset=None)
    harness("bn-swap", "unknown", "natural").refused("--dataset")
    harness(*COMMAND, "--dataset", "digits", "--output", "checkpoints/lenet.toml").refused("is not a folder")
