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
from harness.errors import InvalidInput, ResultError, StorageError
from harness.models.sources._zoo import import_package, zoo_names
from harness.publishing import Evidence, _folder, gather
from harness.publishing.submission import Checked, Paper, Submission, _board, _Parts, check, submit
from harness.publishing.submission import _forms as forms
from harness.publishing.submission._board import BOARDS, Board
from harness.publishing.submission._entry import entry
from harness.publishing.submission._paper import check_external_id, check_model_id, model_id
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

    def test_what_is_no_address(self) -> None:
        for url in ("http://[::1", "http://[x]/", "ftp://example.org", "https:///x"):
            with pytest.raises(InvalidInput, match=r"the paper's address must .*--paper-url"):
                replace(PAPER, url=url)

    def test_digits_are_those_of_ascii(self) -> None:
        wide = "２０２４"
        with pytest.raises(InvalidInput, match="an entry is called"):
            check_model_id(f"Poe{wide}Example")
        with pytest.raises(InvalidInput, match="year in the venue"):
            model_id(replace(PAPER, venue=f"NeurIPS {wide}"))

    @pytest.mark.parametrize(
        "name", ["", "../../../x", "a/b", "..", ".x", "a\\b", "a\nb", "a\x1b[31m", "Ä", "a b", "a\n"]
    )
    def test_an_entry_of_others_is_called_by_one_part_of_a_path(self, name: str) -> None:
        with pytest.raises(InvalidInput, match=r"^the entry of an external evaluation .*--model-id") as caught:
            check_external_id(name)
        assert str(caught.value).isprintable()

    def test_every_entry_of_robustbench_can_be_evaluated_by_others(self) -> None:
        for name in {name for board in BOARDS for name in zoo_names(board.dataset, board.threat)}:
            assert check_external_id(name) == name

    def test_names_are_not_too_long_for_a_file(self) -> None:
        assert check_model_id("A2024" + "x" * 95)
        for wrong in (check_model_id, check_external_id):
            with pytest.raises(InvalidInput, match="at most 100 characters, got 101"):
                wrong("A2024" + "x" * 96)
        with pytest.raises(InvalidInput, match="at most 100"):
            model_id(replace(PAPER, title="x" * 300))


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

    def test_nothing_is_written_beside_the_folder(self, evidence: Evidence, tmp_path: Path) -> None:
        """Neither the name of an entry nor names in a result lead out of it."""
        with pytest.raises(InvalidInput, match="external evaluation"):
            submit(evidence, PAPER, tmp_path / "sub", external=True, name="../../../x", draft=True)
        assert not list(tmp_path.iterdir())
        data = evidence.result.dataset.model_copy(update={"name": "../../<b>\n\x1b[31m"})
        threat = evidence.result.threat.model_copy(update={"norm": "../dir/file.py:NAME"})
        result = evidence.result.model_copy(update={"dataset": data, "threat": threat, "suite": "[x](y)|`"})
        for external in (False, True):
            name = "Poe2024Example"
            parts = _Parts(replace(evidence, result=result), PAPER, name, external)
            checks = tuple(parts.checked())
            files = parts.files(checks, False, "DRAFT")
            assert all(len(Path(file).parts) <= 4 and ".." not in Path(file).parts for file in files), list(files)
            assert f"model_info/b-31m/dir-file.py-NAME/{name}.json" in files
            issue = files["issue.md"].decode()
            assert "<b>" not in issue
            assert "[x](y)" not in issue
            assert "\x1b" not in issue

    def test_a_failed_try_leaves_nothing_behind(
        self, evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(files: dict[Path, bytes]) -> None:
            next(iter(files)).parent.mkdir(parents=True)
            raise StorageError("No space left on device")

        (tmp_path / "mine").mkdir()
        with monkeypatch.context() as patched:
            patched.setattr(_folder, "write_together", full)
            for folder in (tmp_path / "new" / "sub", tmp_path / "mine"):
                with pytest.raises(StorageError, match="No space"):
                    submit(evidence, PAPER, folder)
        assert [path.name for path in tmp_path.rglob("*")] == ["mine"], "a folder of the user's stays"
        assert submit(evidence, PAPER, tmp_path / "new" / "sub").files

    def test_what_can_be_known_early_is(self, tmp_path: Path) -> None:
        assert check(PAPER, tmp_path / "new") == "Contributors2026Example"
        assert check(PAPER, tmp_path, name="Standard", external=True) == "Standard"
        (tmp_path / "file").touch()
        for folder, error in (
            (tmp_path, InvalidInput),
            (tmp_path / "file", InvalidInput),
            (tmp_path / "file" / "below", StorageError),
            (tmp_path / ("x" * 300), StorageError),
        ):
            with pytest.raises(error, match="--to"):
                check(PAPER, folder)
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

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

    @pytest.mark.parametrize("external", [False, True])
    def test_an_attack_that_is_only_called_autoattack(self, evidence: Evidence, tmp_path: Path, external: bool) -> None:
        """The name of a suite is only a name; the steps are what ran."""
        first, *others = evidence.result.steps
        weak = first.model_copy(update={"parameters": {**first.parameters, "steps": 1}})
        other = replace(evidence, result=evidence.result.model_copy(update={"steps": [weak, *others]}))
        rule = "" if external else r"the attack is AutoAttack, standard version' \(suite autoattack: step 1 .*"
        name = "Standard" if external else None
        with pytest.raises(ResultError, match=rf"{rule}flag steps-differ .*steps=1.*steps=100"):
            submit(other, PAPER, tmp_path / "sub", external=external, name=name)
        assert not (tmp_path / "sub").exists()

    def test_no_text_of_a_result_breaks_the_table_of_checks(self) -> None:
        page = forms.checks_page("x", [Checked("rule", "failed", "a|b\n\x1b[31m<b>[x](y)")], "")
        assert page.endswith("| rule | failed | a\\|b\\\\n\\\\x1b\\[31m&lt;b&gt;\\[x\\](y) |\n")

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
        failed = [check for check in written.checks if check.outcome == "failed"]
        readme = (written.folder / "README.md").read_text()
        assert readme.count("- Not met: ") == len(failed) > 0
        assert f"DRAFT, not a submission: {len(failed)} rule" in readme
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
