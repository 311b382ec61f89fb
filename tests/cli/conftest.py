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
from harness.evaluation import _evaluate
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

    def run(plan: evaluation.Plan, *, progress: Any, keep_state: bool = False) -> evaluation.Evaluation:
        target, settings = plan.target, plan.settings
        statistics = {"bn_stats": target.statistics.kind, "bn_data": target.statistics.data}
        known = {"checkpoint": target.name, "dataset": target.dataset_record, "n": len(target.x)}
        asked.append({**known, "threat": plan.threat, "suite": plan.suite.name, **statistics, **vars(settings)})
        print("a library that prints")
        progress(AttackProgress("first", 0.5, 7, 10))
        progress(AttackProgress("first", 0.9, 6, 10))
        progress(AttackProgress("second", 0.5, 5, 10))
        n = len(target.x)
        flags = ("doubtful",) if plan.suite.name == "fgsm" else ()
        made = make_result(n=n, clean=n, robust=n // 2, flags=flags)
        identity = {"evaluation_id": plan.evaluation_id, "record_id": plan.record_id}
        result = made.model_copy(update=plan.description | identity)
        return evaluation.Evaluation(result, make_verdicts(result), target.x)

    monkeypatch.setattr(_evaluate, "run", run)
    monkeypatch.setattr(evaluation, "place", lambda plan: None)  # what this machine can do does not matter
    return asked
