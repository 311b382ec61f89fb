"""What Python and notebooks hand in and get back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import harness
from harness import checkpoints, datasets, evaluation
from harness.errors import InvalidInput, ModelError, ResultError
from harness.results import store
from harness.threat import ThreatModel
from tests.evaluation.test_caller_state import MODEL, X, Y
from tests.registry.material import registered, small

pytestmark = pytest.mark.usefixtures("unaudited")

DATA = datasets.load("digits", limit=12)


def attack(model: Any = MODEL, x: Any = X, y: Any = Y, **settings: Any) -> harness.Result:
    return harness.evaluate(model, x, y, **{"threat": "Linf:0.05", "suite": "pgd-20", "workers": 1} | settings)


KNOWN = attack()


def test_the_package_shows_what_it_offers() -> None:
    assert set(harness.__all__) == set(dir(harness))
    assert {"evaluate", "leaderboard", "load_results", "Result", "datasets"} <= set(dir(harness))
    with pytest.raises(AttributeError, match=r"it offers .*evaluate"):
        _ = harness.evalute


class TestSamples:
    @pytest.mark.parametrize(
        "given",
        [
            (X.numpy(), Y.numpy()),
            (X, Y.tolist()),
            (X.requires_grad_(False), Y.to(torch.int32)),
            (DataLoader(TensorDataset(X, Y), batch_size=7), None),
            (TensorDataset(X, Y), None),
            ([(image, int(label)) for image, label in zip(X, Y, strict=True)], None),
            (iter([(X[:10].numpy(), Y[:10]), (X[10:].numpy(), Y[10:])]), None),
        ],
        ids=["numpy", "list", "int32", "loader", "data set", "pairs", "batches"],
    )
    def test_all_forms_are_the_same_evaluation(self, given: tuple[Any, Any]) -> None:
        result = attack(x=given[0], y=given[1])
        assert result.evaluation_id == KNOWN.evaluation_id
        assert result.robust_acc == KNOWN.robust_acc

    def test_bytes_are_images(self) -> None:
        levels = (X * 255).round().to(torch.uint8)
        assert attack(x=levels).evaluation_id == attack(x=levels.float() / 255).evaluation_id
        assert attack(x=levels.numpy()).evaluation_id == attack(x=levels).evaluation_id

    @pytest.mark.parametrize(
        ("x", "y", "text"),
        [
            (X, None, "y is missing"),
            ((X, Y), None, "two arguments"),
            (DATA, Y, "leave y out"),
            (7, None, "got a int"),
            ([("text", 1)], None, "x must be a tensor or an array"),
            (X, "classes", "y must be"),
        ],
    )
    def test_others_are_refused_in_a_sentence(self, x: Any, y: Any, text: str) -> None:
        with pytest.raises(InvalidInput, match=text):
            attack(x=x, y=y)


class TestModels:
    @pytest.mark.parametrize(
        "function",
        [MODEL.forward, lambda x: MODEL(x), partial(torch.nn.Module.__call__, MODEL)],
        ids=["method", "lambda", "partial"],
    )
    def test_functions_are_attacked(self, function: Callable[[Tensor], Tensor]) -> None:
        result = attack(function)
        assert result.robust_acc == KNOWN.robust_acc
        assert result.model.parameters == KNOWN.model.parameters

    def test_two_functions_are_two_models(self) -> None:
        assert attack(lambda x: MODEL(x)).evaluation_id != attack(lambda x: 2 * MODEL(x)).evaluation_id
        assert attack(lambda x: 3 * MODEL(x)).evaluation_id != attack(lambda x: 2 * MODEL(x)).evaluation_id

    @pytest.mark.parametrize(
        ("model", "text"),
        [
            (MODEL.state_dict(), "got a OrderedDict .build the network"),
            (nn.Linear, "got the class Linear"),
            ("net.pth", "got a str"),
        ],
    )
    def test_what_is_no_model_is_refused(self, model: Any, text: str) -> None:
        with pytest.raises(InvalidInput, match=text):
            attack(model)

    def test_a_model_without_gradients_is_said_to_be_one(self) -> None:
        with pytest.raises(ModelError, match="gradient"):
            attack(lambda x: torch.from_numpy(MODEL(x).detach().numpy()))
        with pytest.raises(ModelError, match="tensor"):
            attack(lambda x: MODEL(x).detach().numpy())


@pytest.mark.parametrize(
    ("threat", "text"),
    [
        (("Linf", 8 / 255), "Linf:8/255"),
        (("L2", 0.5), "L2:0.5"),
        (("linf", "8/255"), "Linf:8/255"),
        (("L1", 12), "L1:12.0"),
        (("Linf", 0.2), "Linf:0.2"),
    ],
)
def test_threats_as_pairs(threat: tuple[str, float | str], text: str) -> None:
    assert str(ThreatModel.parse(threat)) == text
    assert isinstance(threat[1], str) or ThreatModel.parse(threat).radius == threat[1]


@pytest.mark.parametrize("threat", [("Linf",), ("Linf", True), (0.1, "Linf"), 8 / 255, None])
def test_no_threats(threat: Any) -> None:
    with pytest.raises(InvalidInput, match="threat model"):
        attack(threat=threat)


class TestResult:
    def test_short_text(self) -> None:
        result = attack(name="mine")
        assert repr(result) == str(result)
        assert repr(result).startswith("<Result mine: pgd-20, Linf 0.05, 24 samples images: clean 100.0%, robust ")
        assert len(repr(result)) < 200
        assert "robust" not in repr(attack(suite="clean"))

    def test_what_it_was_counted_from(self) -> None:
        assert KNOWN.robust_mask.dtype == np.bool_
        assert KNOWN.robust_mask.mean() == KNOWN.robust_acc
        moved = (KNOWN.adversarial_examples != X).flatten(1).any(1).numpy()
        assert (MODEL(KNOWN.adversarial_examples).argmax(1) == Y).numpy().tolist() == KNOWN.robust_mask.tolist()
        assert not moved[KNOWN.robust_mask].any()
        frame = KNOWN.to_pandas()
        assert len(frame) == 24
        assert set(frame.loc[~frame["robust"], "broken_by"]) == {"pgd-20"}

    def test_html_is_escaped(self) -> None:
        html = attack(name="<script>")._repr_html_()
        assert "<script>" not in html
        assert "&lt;script&gt;" in html

    def test_saved_and_loaded(self, tmp_path: Path) -> None:
        path = KNOWN.save(tmp_path)
        assert [file.suffix for file in tmp_path.iterdir()].count(".safetensors") == 1
        again = harness.Result.load(path)
        assert again.robust_mask.tolist() == KNOWN.robust_mask.tolist()
        assert (again.evaluation_id, again.robust_acc) == (KNOWN.evaluation_id, KNOWN.robust_acc)
        assert KNOWN.save(tmp_path) == path
        with pytest.raises(ResultError, match="not at hand"):
            _ = again.adversarial_examples
        with pytest.raises(ResultError, match="stored already"):
            again.save(tmp_path)


def test_progress_is_shown_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    attack(progress=True)
    shown = capsys.readouterr()
    assert "model, pgd-20: pgd-20: " in shown.err
    assert shown.out == ""
    attack()
    assert capsys.readouterr().err == ""


def test_python_and_the_command_line_are_one_evaluation(tmp_path: Path) -> None:
    point = checkpoints.load(registered(tmp_path / "checkpoints", "own", small()))
    how: dict[str, Any] = {"threat": "Linf:0.15", "suite": "fgsm", "workers": 1}
    plan = evaluation.plan_checkpoint(point, DATA, **how)
    stored = evaluation.obtain(plan, tmp_path / "results")
    same = harness.evaluate(point, DATA, **how)
    assert same.record_id == stored.result.record_id
    ids = {
        harness.evaluate(point.model, DATA, **how).evaluation_id,
        harness.evaluate(point.model, DATA.x, DATA.y, **how).evaluation_id,
        harness.evaluate(point, DATA.x.numpy(), DATA.y.numpy(), **how).evaluation_id,
        harness.evaluate(point, DATA, suite="fgsm", workers=1).evaluation_id,
        harness.evaluate(point, DATA, **how | {"threat": ("Linf", 0.15)}).evaluation_id,
    }
    assert ids == {stored.result.evaluation_id}
    harness.evaluate(point.model, DATA, **how, name="python").save(tmp_path / "results")
    (board,) = harness.leaderboard(tmp_path / "results", output=tmp_path / "boards", formats=["csv"])
    assert sorted(row.checkpoint for row in board.rows) == ["own", "python"]
    assert [path.name for path in (tmp_path / "boards").iterdir()] == [f"{board.name}.csv"]
    assert list(board.to_pandas()["checkpoint"]) == [row.checkpoint for row in board.rows]
    assert "<table" in board._repr_html_()
    frame = harness.load_results(tmp_path / "results")
    assert list(frame["checkpoint"]) == ["own", "python"]
    assert set(frame["evaluation_id"]) == ids
    assert store.read(Path(frame["file"][0])).checkpoint == "own"


def test_no_results_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="no results in"):
        harness.load_results(tmp_path)


@pytest.mark.parametrize("given", [5, b"results", [5], {"a": 1}])
def test_what_is_no_folder_of_results_is_a_sentence(given: object) -> None:
    with pytest.raises(InvalidInput, match="expected a folder of results or several, each as text or a path, got "):
        harness.load_results(given)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="expected a folder of results"):
        harness.leaderboard(given)  # type: ignore[arg-type]
