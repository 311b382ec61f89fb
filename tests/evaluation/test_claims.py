"""A manifest whose claim of a regime is contradicted by the weights: the result says so, and the leaderboard."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from harness import checkpoints, datasets, evaluation
from harness.checkpoints import Checkpoint
from harness.models import Normalization
from harness.results import leaderboard
from harness.results.record import Result
from harness.threat import ThreatModel
from tests.registry.material import registered, small
from tests.registry.test_lineage import flip, train_bn

THREAT = ThreatModel("Linf", "0.15")
DATA = datasets.load("digits", limit=10)


def child(folder: Path, name: str = "child", *, cheat: bool, mother: Path | None = None, **facts: object) -> Checkpoint:
    """Fine-tuned BN layers of ``mother``; a cheat changed one bit of a convolution besides."""
    parent = checkpoints.load(registered(mother or folder, "mother", regime="natural")).as_parent()
    model = small()
    train_bn(model)
    if cheat:
        flip(model.network.state_dict()["conv1.weight"])
    return checkpoints.load(registered(folder, name, model, **({"regime": "bn-ft", "parent": parent} | facts)))


def evaluate(point: Checkpoint, checkpoint_dir: Path | None = None) -> Result:
    return evaluation.evaluate_checkpoint(
        point, DATA, threat=THREAT, suite="clean", checkpoint_dir=checkpoint_dir, workers=1, device="cpu"
    ).result


def test_a_true_claim_is_no_flag(tmp_path: Path) -> None:
    assert evaluate(child(tmp_path, cheat=False)).flags == []


def test_a_false_claim_is_a_flag_of_the_result_and_of_its_row(tmp_path: Path) -> None:
    result = evaluate(child(tmp_path, cheat=True))
    (flag,) = result.flags
    assert (flag.code, flag.figures["parent"]) == ("lineage-contradicted", "mother")
    assert flag.text.startswith("lineage: the manifest claims bn-ft, but 1 of ")
    assert "convolutions changed (conv1.weight)" in flag.text
    (board,) = leaderboard.boards([result, evaluate(child(tmp_path, "honest", cheat=False))])
    assert {row.checkpoint: row.flags for row in board.rows} == {"child": (flag,), "honest": ()}


def test_the_same_weights_under_an_honest_manifest_are_another_record(tmp_path: Path) -> None:
    liar = child(tmp_path / "one", cheat=True)
    honest = child(tmp_path / "two", cheat=True, regime="at-full", parent=None)
    assert liar.manifest.weights_sha256 == honest.manifest.weights_sha256
    results = [evaluate(honest), evaluate(liar)]
    assert results[0].evaluation_id == results[1].evaluation_id
    assert results[0].record_id != results[1].record_id
    # they share a row, and equal figures do not hide the doubt
    (board,) = leaderboard.boards(results)
    assert len(board.rows) == 1
    assert board.rows[0].flags == tuple(results[1].flags)


NOT_FOUND = "lineage: the claim of bn-ft could not be verified (the parent 'mother' was not found)"


def test_a_parent_that_is_not_there_is_a_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    liar = child(tmp_path / "here", cheat=True, mother=tmp_path / "there")
    assert list(map(str, evaluate(liar).flags)) == [NOT_FOUND]
    assert "conv1.weight" in evaluate(liar, tmp_path / "there").flags[0].text
    (tmp_path / "there" / "mother.pt").write_bytes(b"damaged")
    assert list(map(str, evaluate(liar, tmp_path / "there").flags)) == [NOT_FOUND]


def test_weights_of_one_regime_that_are_imported_as_another_are_a_flag(tmp_path: Path) -> None:
    full = checkpoints.load("at_full")
    stranger = checkpoints.load(registered(tmp_path / "gone", "mother", regime="natural")).as_parent()
    for name, facts, reason in [
        ("no-parent", {"regime": "bn-ft"}, "the manifest names none"),
        ("lost-parent", {"regime": "bn-ft", "parent": stranger}, "the parent 'mother' was not found"),
        ("no-seed", {"regime": "bn-scratch"}, "does not say from which seed"),
        ("seed", {"regime": "bn-scratch", "training": {"seed": 0}}, "could not be repeated here"),
    ]:
        point = checkpoints.load(registered(tmp_path, name, full.model, **facts))
        (flag,) = evaluate(point).flags
        assert flag.text.startswith(f"lineage: the claim of {facts['regime']} could not be verified (")
        assert reason in flag.text
    for name, regime in (("everything", "at-full"), ("phases", "partial-at"), ("nothing-claimed", None)):
        assert evaluate(checkpoints.load(registered(tmp_path, name, full.model, regime=regime))).flags == []


def test_a_child_that_normalises_its_images_otherwise_is_a_flag(tmp_path: Path) -> None:
    parent = checkpoints.load(registered(tmp_path, "mother", regime="natural")).as_parent()
    model = small(normalization=Normalization((0.3,), (0.5,)))
    train_bn(model)
    point = checkpoints.load(registered(tmp_path, "child", model, regime="bn-ft", parent=parent))
    (flag,) = evaluate(point).flags
    assert "claims bn-ft, but the images are normalised otherwise (normalization.std changed)" in flag.text


def test_a_parent_of_another_architecture_is_a_flag(tmp_path: Path) -> None:
    mother = small(norm_layer="group")
    parent = checkpoints.load(registered(tmp_path, "mother", mother, regime="natural")).as_parent()
    point = checkpoints.load(registered(tmp_path, "child", small(), regime="bn-ft", parent=parent))
    (flag,) = evaluate(point).flags
    assert "cannot be compared with a parent" in flag.text


def test_a_regime_that_the_network_cannot_have_is_a_flag(tmp_path: Path) -> None:
    path = registered(tmp_path, "odd", small(norm_layer="group"), regime="bn-scratch", training={"seed": 0})
    (flag,) = evaluate(checkpoints.load(path)).flags
    assert "claims bn-scratch, but" in flag.text


def test_a_network_that_cannot_be_built_anew_is_a_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start of a regime from scratch is repeated from its seed, for which its file is needed."""
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "def net(classes):\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, classes))\n"
    )
    from harness import models

    monkeypatch.chdir(tmp_path)
    model = models.build("own.py:net", classes=10, shape=(1, 8, 8), seed=3).eval()
    with torch.no_grad():
        next(model.parameters()).add_(1)
    path = registered(tmp_path, "own", model, regime="bn-scratch", training={"seed": 3})
    point = checkpoints.load(path)
    shutil.rmtree(tmp_path / "code")
    (flag,) = (flag for flag in evaluate(point).flags if flag.code == "lineage-unverified")
    assert flag.text.startswith("lineage: the claim of bn-scratch could not be verified (")
    assert "cannot be built anew here" in flag.text


@pytest.mark.parametrize("name", [manifest.name for manifest in checkpoints.available()])
def test_what_ships_is_what_it_claims_to_be(name: str) -> None:
    assert evaluate(checkpoints.load(name)).flags == []
