"""``harness train``: what it writes, and what it refuses before it begins."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

from harness.checkpoints import lineage, load
from harness.cli import run
from harness.errors import StorageError
from tests.training.tiny import parent

QUICK = ("--dataset", "digits", "--limit", "60", "--epochs", "2", "--steps", "2", "--batch-size", "16")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_HOME", raising=False)


def test_a_checkpoint_its_best_epoch_and_the_log_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    parent(Path("checkpoints"))
    command = ("train", "--regime", "bn-ft", "--parent", "parent.pt", *QUICK, "--eps", "0.1", "--device", "cpu")
    assert run([*command, "--json"]) == 0
    shown, progress = capsys.readouterr()
    report = json.loads(shown)
    assert report["checkpoint"] == "bn_ft"
    assert [report[key] for key in ("last", "best", "log")] == [
        f"checkpoints/{name}" for name in ("bn_ft.pt", "bn_ft_best.pt", "bn_ft.csv")
    ]
    assert "bn_ft: epoch 2 of 2 loss" in progress
    assert len(Path("checkpoints/bn_ft.csv").read_text().splitlines()) == 3
    assert not Path("checkpoints/.training").exists()

    manifest = load("bn_ft").manifest
    start = load("parent").manifest
    assert manifest.regime == "bn-ft"
    assert manifest.parent is not None
    assert manifest.parent.name == "parent"
    assert manifest.parent.weights_sha256 == start.weights_sha256
    assert (manifest.dataset, manifest.threat, manifest.trained_parameters) == ("digits", "Linf:0.1", 480)
    assert manifest.normalization == load("parent").manifest.normalization
    facts = manifest.training
    assert (facts["epochs"], facts["steps"], facts["seed"], facts["attack"]) == (2, 2, 0, "pgd")
    assert load("bn_ft_best").manifest.training["kept"] == "best"

    # the command in the manifest makes the same weights again
    assert run([*shlex.split(facts["command"])[1:], "--output", "again"]) == 0
    assert load("again/bn_ft.pt").manifest.weights_sha256 == manifest.weights_sha256


def test_a_regime_of_one_s_own_stands_in_the_manifest_and_is_checked_by_it() -> None:
    parent(Path("checkpoints"))
    Path("gamma_only.toml").write_text('start = "parent"\ntrained = ["bn-gamma"]\nloss = "natural"\n')
    assert run(["train", "--regime", "gamma_only.toml", "--parent", "parent.pt", *QUICK, "--keep", "last"]) == 0
    Path("gamma_only.toml").unlink()
    child = load("gamma_only")
    assert child.manifest.definition == {
        "start": "parent", "trained": ["bn-gamma"], "loss": "natural", "summary": "from gamma_only.toml"
    }  # fmt: skip
    told = lineage.verify_claim(child, lineage.parent_of(child))
    assert told.status == "consistent", told.reason
    assert load("parent").manifest.definition == {}


def test_what_exists_is_not_overwritten_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--regime", "natural", *QUICK, "--keep", "last"]
    assert run(command) == 0
    before = Path("checkpoints/natural.pt").read_bytes()
    capsys.readouterr()
    assert run([*command, "--seed", "1"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "exists already" in err
    assert Path("checkpoints/natural.pt").read_bytes() == before
    assert run([*command, "--seed", "1", "--overwrite"]) == 0
    assert Path("checkpoints/natural.pt").read_bytes() != before


def test_divergence_keeps_the_last_finite_state_under_another_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--regime", "natural", *QUICK, "--lr", "1e30"]) == 1
    _, err = capsys.readouterr()
    assert "diverged in epoch 1 of 2" in err
    assert "natural_before_divergence.pt" in err
    assert load("natural_before_divergence").manifest.training["epoch"] == 0
    assert not Path("checkpoints/natural.pt").exists()


def test_what_could_not_be_written_is_written_without_training_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(files: object) -> None:
        raise StorageError("cannot write natural.pt: No space left on device")

    command = ["train", "--regime", "natural", *QUICK]
    with monkeypatch.context() as patch:
        patch.setattr("harness.checkpoints._registry.write_together", full)
        assert run(command) == 1
    err = capsys.readouterr().err
    assert "epoch 2 of 2" in err
    assert "No space left on device" in err
    assert list(Path("checkpoints/.training").glob("*.pt"))
    assert run(command) == 0
    assert "epoch 1 of 2" not in capsys.readouterr().err
    assert load("natural").manifest.training["epoch"] == 2
    assert not Path("checkpoints/.training").exists()


def test_a_folder_that_cannot_be_written_is_known_before_training(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # tests may run as root, whom no permission stops
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert run(["train", "--regime", "natural", *QUICK, "--output", "here"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "cannot write to here: no permission" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--regime", "bn-fd", *QUICK], 1, "did you mean 'bn-ft'"),
        (["--regime", "natural"], 2, "--dataset"),
        (["--regime", "bn-ft", *QUICK], 1, "starts from a parent"),
        (["--regime", "bn-ft", "--parent", "nothing", *QUICK], 1, "unknown checkpoint 'nothing'"),
        (["--regime", "natural", *QUICK, "--epochs", "0"], 1, "epochs"),
        (["--regime", "natural", *QUICK, "--batch-size", "0"], 1, "batch_size"),
        (["--regime", "natural", *QUICK, "--eps", "8/0"], 1, "8/0"),
        (["--regime", "natural", *QUICK, "--norm", "L2"], 1, "no standard radius in L2"),
        (["--regime", "natural", *QUICK, "--architecture", "digit-resnet"], 1, "digits-resnet"),
        (["--regime", "natural", *QUICK, "--schedule", "linear"], 2, "linear"),
        (["--regime", "natural", *QUICK, "--name", "../evil"], 1, "cannot register '../evil': expected letters"),
        (["--regime", "natural", *QUICK, "--name", "../evil", "--overwrite"], 1, "cannot register '../evil'"),
        (["--regime", "natural", *QUICK, "--name", "x" * 300], 1, "at most 200 characters, got 300"),
        (["--regime", "natural", *QUICK, "--output", "/dev/null/here"], 1, "/dev/null is not a folder"),
        (["--regime", "natural", *QUICK, "--device", "meta"], 1, "unknown device 'meta'"),
        (["--regime", "mine.toml", *QUICK], 1, "cannot read the regime mine.toml"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
    assert not Path("checkpoints").exists()
