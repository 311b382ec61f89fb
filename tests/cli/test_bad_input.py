"""Bad input is one clear sentence on stderr, and nothing is written."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.results import store
from tests.cli.conftest import Harness
from tests.results.records import make_result, make_verdicts


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("args", "words", "code"),
    [
        ("--suite autoatack", ["autoatack", "did you mean 'autoattack'?"], 1),
        ("--dataset digit", ["digit", "did you mean 'digits'?"], 1),
        ("--norm Lif", ["Lif", "Linf"], 1),
        ("--norm L3 --eps 1", ["L3", "Linf"], 1),
        ("--eps -1", ["eps", "'-1'"], 1),
        ("--eps 8/0", ["eps", "8/0"], 1),
        ("--eps much", ["eps", "much"], 1),
        ("--eps inf", ["eps", "inf"], 1),
        ("--batch-size 0", ["--batch-size", "'0'"], 2),
        ("--batch-size many", ["--batch-size", "many"], 2),
        ("--workers -2", ["--workers", "-2"], 2),
        ("--limit 0", ["--limit", "0"], 2),
        ("--seed -1", ["--seed", "-1"], 2),
        ("--precision fp8", ["--precision", "fp8"], 2),
        ("--device gpu", ["gpu", "cpu"], 1),
        ("--device mps", ["unknown device 'mps'", "cpu, cuda or cuda:N"], 1),
        ("--device meta", ["unknown device 'meta'", "cpu, cuda or cuda:N"], 1),
        ("--dataset missing.npz", ["missing.npz"], 1),
        ("--checkpoint tinny", ["tinny", "did you mean 'tiny'?"], 1),
        ("--checkpoint nowhere/tiny.pt", ["nowhere"], 1),
        ("--checkpoint-dir nowhere", ["nowhere"], 1),
        ("--output checkpoints/tiny.pt/below", ["tiny.pt", "not a folder", "--output"], 1),
    ],
)
def test_arguments(harness: Harness, tiny: Path, folder: Path, args: str, words: list[str], code: int) -> None:
    before = files(folder)
    harness("evaluate", "--checkpoint", "tiny", "--suite", "fgsm", *args.split()).refused(*words, code=code)
    assert files(folder) == before


def test_an_output_folder_without_permission(
    harness: Harness, tiny: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # tests may run as root, whom no permission stops
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    before = files(folder)
    harness("evaluate", "--checkpoint", "tiny", "--output", "results").refused("results", "no permission", "--output")
    assert files(folder) == before


class Code:
    """What a hostile file would have the reader do."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return (os.mkdir, ("executed",))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Code()))


def hostile_archive(path: Path) -> None:
    torch.save({"state_dict": Code()}, path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_weights(path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, path)


def missing(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [truncated, pickled, hostile_archive, empty, other_weights, missing])
def test_damaged_checkpoints(harness: Harness, tiny: Path, folder: Path, damage: Callable[[Path], None]) -> None:
    damage(tiny)
    before = files(folder)
    harness("evaluate", "--checkpoint", "tiny.pt", "--suite", "fgsm").refused("tiny")
    assert files(folder) == before
    assert not (folder / "executed").exists()


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('architecture = "digits-resnet"', 'architecture = "digits-resent"', "did you mean 'digits-resnet'?"),
        ('architecture = "digits-resnet"', 'architecture = "resnet20"', "resnet20"),
        ('norm_layer = "batch"', 'norm_layer = "none"', "tiny"),
        ("classes = 10", "classes = 7", "tiny"),
        ("classes = 10", "classes = 1", "classes"),
        ('regime = "natural"', 'regmie = "natural"', "did you mean 'regime'?"),
        ('threat = "Linf:0.15"', 'threat = "Linf:8/0"', "8/0"),
        ('name = "tiny"', "name = ", "tiny.toml"),
    ],
)
def test_manifests_that_do_not_fit(harness: Harness, tiny: Path, folder: Path, old: str, new: str, word: str) -> None:
    manifest = tiny.with_suffix(".toml")
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new))
    before = files(folder)
    harness("evaluate", "--checkpoint", "tiny", "--suite", "fgsm").refused(word)
    assert files(folder) == before


def test_images_of_another_shape(harness: Harness, tiny: Path, folder: Path) -> None:
    x = np.zeros((20, 3, 16, 16), dtype=np.uint8)
    np.savez(folder / "large.npz", x=x, y=np.arange(20) % 10)
    args = ["--dataset", "large.npz", "--norm", "Linf", "--eps", "0.1"]
    harness("evaluate", "--checkpoint", "tiny", *args).refused("[1, 8, 8]", "[3, 16, 16]", "--dataset")


@pytest.mark.parametrize("labels", [[-1, 3], [3, 10_000_000], [0.5, 1.0]])
def test_labels_outside_the_classes(harness: Harness, tiny: Path, folder: Path, labels: list[float]) -> None:
    x = np.zeros((2, 1, 8, 8), dtype=np.uint8)
    np.savez(folder / "digits_wrong.npz", x=x, y=np.array(labels))
    harness("evaluate", "--checkpoint", "tiny", "--dataset", "digits_wrong.npz").refused("digits_wrong")


def test_images_outside_the_range(harness: Harness, tiny: Path, folder: Path) -> None:
    np.savez(folder / "digits_wrong.npz", x=np.full((2, 1, 8, 8), 255.0), y=np.array([1, 2]))
    harness("evaluate", "--checkpoint", "tiny", "--dataset", "digits_wrong.npz").refused("digits_wrong", "255")


def test_a_model_that_returns_nan(harness: Harness, tiny: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness import checkpoints

    load = checkpoints.load

    def poisoned(*args: object, **options: object) -> checkpoints.Checkpoint:
        point = load(*args, **options)  # type: ignore[arg-type]
        point.model.register_forward_hook(lambda module, inputs, output: output * float("nan"))
        return point

    monkeypatch.setattr(checkpoints, "load", poisoned)
    before = files(folder)
    harness("evaluate", "--checkpoint", "tiny", "--suite", "fgsm", "--limit", "8", "--workers", "1").refused("NaN")
    assert files(folder) == before


def test_leaderboard_without_results(harness: Harness, folder: Path) -> None:
    harness("leaderboard").refused("leaderboards/results", "harness evaluate")
    (folder / "empty").mkdir()
    harness("leaderboard", "--results", "empty").refused("empty", "harness evaluate")


def test_leaderboard_of_a_damaged_result(harness: Harness, folder: Path) -> None:
    good, bad = make_result("good"), make_result("bad")
    store.save(good, make_verdicts(good), folder / "results")
    path = store.save(bad, make_verdicts(bad), folder / "results")
    path.write_text(path.read_text()[:300])
    code, out, _ = harness("leaderboard", "--results", "results")
    assert code == 0
    assert f"left out: the result {path.name} is damaged" in out
    for file in ("digits-Linf.csv", "digits-Linf.md"):
        text = (folder / "leaderboards" / file).read_text(encoding="utf-8")
        assert "good" in text
        assert path.name.replace("_", "") in text.replace("\\_", "").replace("_", "")
    (left_out,) = json.loads(harness("leaderboard", "--results", "results", "--json").out)[0]["left_out"]
    assert (left_out["file"], "damaged" in left_out["reason"]) == (path.name, True)


def test_leaderboard_of_damaged_results_alone(harness: Harness, folder: Path) -> None:
    bad = make_result("bad")
    path = store.save(bad, make_verdicts(bad), folder / "results")
    path.write_text(path.read_text()[:300])
    harness("leaderboard", "--results", "results").refused("no results in results", path.name, "damaged")
    assert not (folder / "leaderboards").exists()


def test_leaderboard_into_a_file(harness: Harness, folder: Path) -> None:
    result = make_result()
    store.save(result, make_verdicts(result), folder / "results")
    (folder / "file").write_text("")
    harness("leaderboard", "--results", "results", "--output", "file").refused("file", "not a folder")


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ('"pgd"\nstepz = 3', ["unknown parameter of the attack pgd 'stepz'", "did you mean 'steps'?"]),
        ('"pgd"\nsteps = "10"', ["the attack pgd's steps must be a whole number, got '10'"]),
        ('"pgd"\nsteps = true', ["steps must be a whole number, got True"]),
        ('"pgd"\nsteps = 0', ["PGD's steps must be a whole number of at least 1, got 0"]),
        ('"pgd"\nstep_size = "a"', ["step_size must be a finite number or none, got 'a'"]),
        ('"pgd"\nstep_size = inf', ["step_size must be a finite number or none, got inf"]),
        ('"pgd"\nrandom_start = 1', ["random_start must be true or false, got 1"]),
        ('"pgd"\nloss = "dll"', ["did you mean 'dlr'?"]),
        ('"pgd"\nthreat = "L2:1"', ["unknown parameter of the attack pgd 'threat'"]),
        ('"square"\nqueries = 10.5', ["queries must be a whole number, got 10.5"]),
        ('"square"\nqueries = 0', ["square's queries must be a whole number of at least 1, got 0"]),
        ('"fab"\nsteps = "10"', ["the attack fab's steps must be a whole number, got '10'"]),
        ('"fab"\ntargets = -1', ["FAB's targets must be a whole number of at least 1, got -1"]),
        ('"fab"\neta = nan', ["eta must be a finite number, got nan"]),
        ('"fgsm"\nsteps = 3', ["unknown parameter of the attack fgsm 'steps'", "loss, random_start"]),
    ],
)
def test_parameters_of_a_suite_of_ones_own(
    harness: Harness, tiny: Path, folder: Path, calls: list[object], step: str, words: list[str]
) -> None:
    (folder / "mine.toml").write_text(f'[[step]]\nattack = "fgsm"\n[[step]]\nname = "second"\nattack = {step}\n')
    harness("evaluate", "--checkpoint", "tiny", "--suite", "mine.toml").refused("step 2 of the suite mine.toml", *words)
    assert calls == []


def test_a_suite_of_ones_own_cannot_pass_for_a_registered_one(harness: Harness, tiny: Path, folder: Path) -> None:
    (folder / "autoattack.toml").write_text('[[step]]\nattack = "fgsm"\n')
    harness("evaluate", "--checkpoint", "tiny", "--suite", "autoattack.toml").refused("registered suite", "rename")
    assert not (folder / "leaderboards").exists()
