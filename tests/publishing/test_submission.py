"""A submission is what RobustBench asks for, and nothing that should not be submitted becomes one."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.audit.kinds import RANDOMISED
from harness.errors import InvalidInput, ResultError
from harness.models.sources._zoo import import_package, zoo_names
from harness.publishing import Evidence, gather
from harness.publishing.submission import Paper, Submission, _board, submit
from harness.publishing.submission._board import BOARDS, Board
from harness.publishing.submission._entry import entry
from harness.publishing.submission._paper import check_model_id, model_id
from harness.results import store
from tests.house._tree import ROOT
from tests.results.records import make_result

PAPER = Paper(
    "Example of a submission", "https://example.org/at-full", "robust-harness contributors", "Unpublished 2026"
)
EXAMPLE = ROOT / "docs" / "examples" / "submission"


@pytest.fixture
def board_of_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if RobustBench had a leaderboard that the shipped result is for."""
    monkeypatch.setattr(_board, "BOARDS", (*BOARDS, Board("digits", "Linf", "0.15", 500)))


def outcomes(written: Submission) -> set[str]:
    return {check.outcome for check in written.checks}


class TestEntry:
    def example(self) -> dict[str, Any]:
        """The entry that the installed robustbench shows in its documentation."""
        import_package()
        text = importlib.import_module("robustbench.leaderboard.template").generate_leaderboard.__doc__
        found: dict[str, Any] = json.loads(re.search(r"\{.*\}", text, re.DOTALL)[0])  # type: ignore[index]
        return found

    def ours(self, **options: Any) -> dict[str, Any]:
        result = make_result(dataset="cifar10", threat="L2:0.5", n=10_000, size=10_000, clean=9108, robust=7291)
        return entry(result, PAPER, architecture="ResNet-50", additional_data=True, **options)

    def test_names_order_and_types_are_those_of_robustbench(self) -> None:
        example, ours = self.example(), self.ours()
        assert [*example, "unreliable"] == list(ours)
        assert [type(ours[name]) for name in example] == [type(value) for value in example.values()]
        assert list(self.ours(footnote="words"))[-2:] == ["footnote", "unreliable"]
        same = ("number_forward_passes", "eps", "clean_acc", "autoattack_acc", "additional_data", "architecture")
        assert {name: ours[name] for name in same} == {name: example[name] for name in same}

    def test_robustbench_knows_every_field_that_it_reads(self) -> None:
        import_package()
        known = [field.name for field in dataclasses.fields(importlib.import_module("robustbench.utils").ModelInfo)]
        ours = [name for name in self.ours(footnote="words") if name != "unreliable"]
        assert [name for name in known if name in ours] == ours

    def test_the_boards_are_those_of_robustbench(self) -> None:
        for board in BOARDS:
            assert zoo_names(board.dataset, board.threat)

    def test_names_of_entries_have_the_form_of_robustbench(self) -> None:
        names = {name for board in BOARDS for name in zoo_names(board.dataset, board.threat)}
        others = []
        for name in names:
            try:
                check_model_id(name)
            except InvalidInput:
                others.append(name)
        assert all(name.startswith("Standard") or "." in name for name in others), others

    @pytest.mark.parametrize(
        ("authors", "venue", "title", "name"),
        [
            ("Leslie Rice, Eric Wong", "ICML 2020", "Overfitting in deep learning", "Rice2020Overfitting"),
            ("Jörg Müller and Ann Poe", "arXiv, Jun 2024", "«Robust» networks", "Muller2024Robust"),
            ("S. Moosavi-Dezfooli", "CVPR 2019", "robustness via curvature", "Moosavi-Dezfooli2019Robustness"),
        ],
    )
    def test_an_entry_is_named_after_its_paper(self, authors: str, venue: str, title: str, name: str) -> None:
        assert model_id(Paper(title, "https://example.org", authors, venue)) == name

    def test_what_is_no_paper(self) -> None:
        for wrong in ({"url": "arxiv.org/1"}, {"title": " "}, {"authors": "a\nb"}, {"venue": "x\u202e"}):
            with pytest.raises(InvalidInput, match="the paper's"):
                Paper(**{**dataclasses.asdict(PAPER), **wrong})
        with pytest.raises(InvalidInput, match="year in the venue"):
            model_id(replace(PAPER, venue="unpublished"))


@pytest.mark.usefixtures("board_of_digits")
class TestFolder:
    def test_a_result_that_meets_every_rule_is_written_whole(self, evidence: Evidence, tmp_path: Path) -> None:
        written = submit(evidence, PAPER, tmp_path / "sub")
        assert outcomes(written) == {"passed", "not checkable"}
        assert written.name == "Contributors2026Example"
        texts = {file: (written.folder / file).read_bytes() for file in written.files}
        assert not any(b"DRAFT" in text for text in texts.values())
        where = f"digits/Linf/{written.name}"
        assert {f"model_info/{where}.json", f"models/{where}.pt", f"adversarial/{where}.pt", "issue.md"} <= set(texts)
        adversarial = torch.load(written.folder / f"adversarial/{where}.pt", weights_only=True)
        target, model = evidence.target, evidence.checkpoint.model
        assert float((adversarial - target.x[:]).abs().max()) <= 0.15 + 1e-6
        with torch.no_grad():
            assert float((model(adversarial).argmax(1) == target.y).float().mean()) == pytest.approx(0.812)
        assert "issues/new?template=new-model.md&title=" in texts["README.md"].decode()
        store.read(written.folder / "result" / evidence.path.name)

    def test_an_external_evaluation_adds_one_field_to_an_entry(self, evidence: Evidence, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="--model-id"):
            submit(evidence, PAPER, tmp_path / "sub", external=True)
        written = submit(evidence, PAPER, tmp_path / "sub", external=True, name="Standard")
        (added,) = (written.folder / "model_info").rglob("*.json")
        assert json.loads(added.read_text()) == {"external": "81.20"}
        assert "[New evaluation] Standard" in (written.folder / "issue.md").read_text()
        assert not any(file.startswith(("models", "robustbench")) for file in written.files)

    def test_a_folder_with_something_in_it_is_left_alone(self, evidence: Evidence, tmp_path: Path) -> None:
        (tmp_path / "mine").touch()
        with pytest.raises(InvalidInput, match="not empty"):
            submit(evidence, PAPER, tmp_path)


@pytest.mark.usefixtures("board_of_digits")
class TestRefused:
    def refused(self, evidence: Evidence, folder: Path, words: str) -> None:
        with pytest.raises(ResultError, match=words):
            submit(evidence, PAPER, folder)
        assert not folder.exists()

    def test_partial(self, evidence: Evidence, tmp_path: Path) -> None:
        data = evidence.result.dataset.model_copy(update={"size": 10_000})
        partial = replace(evidence, result=evidence.result.model_copy(update={"dataset": data}))
        self.refused(partial, tmp_path / "sub", "partial: 500 of 10,000")

    def test_flagged(self, evidence: Evidence, tmp_path: Path) -> None:
        flagged = replace(evidence, result=evidence.result.model_copy(update={"flags": [RANDOMISED()]}))
        self.refused(flagged, tmp_path / "sub", "forward pass is deterministic.*flag randomised")

    def test_another_attack(self, evidence: Evidence, tmp_path: Path) -> None:
        other = replace(evidence, result=evidence.result.model_copy(update={"suite": "pgd"}))
        self.refused(other, tmp_path / "sub", "suite pgd")

    def test_no_leaderboard(self, evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_board, "BOARDS", BOARDS)
        self.refused(evidence, tmp_path / "sub", "there is a leaderboard")

    def test_changed_examples_and_a_changed_result(self, shipped: Path, tmp_path: Path) -> None:
        for file in shipped.parent.glob(f"{shipped.stem}.*"):
            shutil.copy(file, tmp_path)
        path = tmp_path / shipped.name
        examples = path.with_suffix(".safetensors")
        content = bytearray(examples.read_bytes())
        content[-1] ^= 1
        examples.write_bytes(content)
        changed = gather(path, checkpoint_dir=ROOT / "checkpoints")
        self.refused(changed, tmp_path / "sub", "changed after they were written")
        written = submit(changed, PAPER, tmp_path / "sub", draft=True)
        assert not any(file.startswith("adversarial") for file in written.files)
        for file in written.files:
            text = (written.folder / file).read_bytes()
            assert b"DRAFT" in text or file.startswith("result/") or written.name in file
            assert b"issues/new" not in text
        path.write_text(path.read_text().replace('"robust_acc": 0.812', '"robust_acc": 0.902'))
        with pytest.raises(ResultError, match="was changed"):
            gather(path)


def test_the_example_in_the_documentation_is_what_is_written(evidence: Evidence, tmp_path: Path) -> None:
    written = submit(evidence, PAPER, tmp_path / "sub", draft=True)
    if not EXAMPLE.is_dir():
        pytest.skip("the documentation is not part of this copy of the sources")
    there = {path.relative_to(EXAMPLE).as_posix() for path in EXAMPLE.rglob("*") if path.is_file()}
    weights = {file for file in written.files if file.startswith("models/")}
    assert there == set(written.files) - weights, "the weights are those of checkpoints/at_full.pt, and left out"
    for file in there - {file for file in there if file.endswith(".pt")}:
        again = "run the command of docs/submitting.md anew"
        assert (EXAMPLE / file).read_bytes() == (written.folder / file).read_bytes(), again
    assert max(path.stat().st_size for path in EXAMPLE.rglob("*") if path.is_file()) < 300_000
