"""A folder of its own for every test, with a checkpoint in it, and the command line as a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from harness import checkpoints, evaluation, models
from harness.cli import run
from harness.engine.types import AttackProgress
from tests.results.records import make_result, make_verdicts


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    def refused(self, *words: str, code: int = 1) -> None:
        """It failed as it should: nothing on stdout, one sentence on stderr, no traceback."""
        assert (self.code, self.out) == (code, "")
        assert self.err.startswith("error: ")
        assert self.err.count("\n") == 1
        assert "Traceback" not in self.err
        assert "this is a defect" not in self.err
        for word in words:
            assert word in self.err


Harness = Callable[..., Outcome]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_HOME", raising=False)
    return tmp_path


@pytest.fixture
def harness(folder: Path, capsys: pytest.CaptureFixture[str]) -> Harness:
    """Runs a command line in `folder`."""

    def call(*args: str) -> Outcome:
        capsys.readouterr()
        code = run(args)
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoint ``tiny``: the digits network, untrained."""
    directory = tmp_path_factory.mktemp("made")
    with torch.random.fork_rng():
        model = models.build("digits-resnet", classes=10, shape=(1, 8, 8), seed=0).eval()
    checkpoints.save(model, directory=directory, name="tiny", regime="natural", dataset="digits", threat="Linf:0.15")
    return directory


@pytest.fixture
def tiny(folder: Path, trained: Path) -> Path:
    """``checkpoints/tiny.pt`` with its manifest, in the current folder."""
    here = folder / "checkpoints"
    here.mkdir()
    for path in trained.iterdir():
        (here / path.name).write_bytes(path.read_bytes())
    return here / "tiny.pt"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the evaluator was asked for; it answers at once, with a flag if the suite is fgsm."""
    asked: list[dict[str, Any]] = []

    def evaluate_checkpoint(point: Any, dataset: Any, *, progress: Any, **settings: Any) -> evaluation.Evaluation:
        asked.append({"checkpoint": point.manifest.name, "dataset": dataset, **settings})
        print("a library that prints")
        progress(AttackProgress("first", 0.5, 7, 10))
        progress(AttackProgress("first", 0.9, 6, 10))
        progress(AttackProgress("second", 0.5, 5, 10))
        suite = settings["suite"]
        deciding = {"seed", "precision", "bn_stats", "bn_data", "checkpoint_dir", "batch_size", "workers"}
        identity = evaluation.evaluation_id(
            point, dataset, settings["threat"], suite, **{name: settings[name] for name in deciding & settings.keys()}
        )
        result = make_result(
            point.manifest.name,
            suite=suite,
            threat=str(settings["threat"]),
            n=len(dataset),
            size=dataset.size,
            clean=len(dataset),
            robust=len(dataset) // 2,
            flags=("doubtful",) if suite == "fgsm" else (),
        ).model_copy(update={"evaluation_id": identity})
        return evaluation.Evaluation(result, make_verdicts(result), dataset.x)

    monkeypatch.setattr(evaluation, "evaluate_checkpoint", evaluate_checkpoint)
    return asked
