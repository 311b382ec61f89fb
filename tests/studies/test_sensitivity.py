"""A claim is judged at half, once and twice the budget of the entries that it speaks of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli import run as harness
from harness.errors import InvalidInput, UnknownName
from harness.studies import Study, plan
from harness.studies.judging import Judgement
from harness.studies.sensitivity import Row, derive
from tests.studies.made_up import planned, write

pytestmark = pytest.mark.usefixtures("unaudited")

CLAIMS = [
    {"text": "robust( bn-ft ) > robust(at-full) - 5"},
    {"text": 'robust(bn-ft, suite="fgsm") > chance'},
    {"text": "clean(natural) > chance"},
]
TRAINING = {"epochs": 10, "batch_size": 20, "steps": 1, "validation": 0}


def derived(*varied: str, **changes: Any) -> Study:
    return derive(planned(claim=CLAIMS, training=TRAINING, **changes), varied)


def test_entries_and_claims_are_there_at_each_budget() -> None:
    study = derived("bn-ft")
    assert [claim.text for claim in study.claim] == [
        "robust( bn-ft-x0.5 ) > robust(at-full) - 5",
        "robust( bn-ft ) > robust(at-full) - 5",
        "robust( bn-ft-x2 ) > robust(at-full) - 5",
        'robust(bn-ft-x0.5, suite="fgsm") > chance',
        'robust(bn-ft, suite="fgsm") > chance',
        'robust(bn-ft-x2, suite="fgsm") > chance',
    ]
    made = plan(study)
    epochs = {member.label: member.settings.epochs for member in made.members if member.settings}
    assert epochs == {"natural": 10, "bn-ft": 10, "at-full": 10, "bn-ft-x0.5": 5, "bn-ft-x2": 20}
    assert {made.member(label).parent for label in ("bn-ft", "bn-ft-x0.5", "bn-ft-x2")} == {"natural"}


def test_networks_of_the_study_itself_are_used() -> None:
    before, after = planned(claim=CLAIMS, training=TRAINING), plan(derived("bn-ft", "at-full"))
    assert before.names.items() <= after.names.items()
    assert len(set(after.names.values())) == len(after.names)


def test_several_entries_vary_together() -> None:
    assert derived("bn-ft", "at-full").claim[0].text == "robust( bn-ft-x0.5 ) > robust(at-full-x0.5) - 5"


def test_what_cannot_be_varied() -> None:
    with pytest.raises(UnknownName, match="bn-ft"):
        derived("bn-tf")
    with pytest.raises(InvalidInput, match="no claim"):
        derive(planned(claim=CLAIMS[2:], training=TRAINING), ["bn-ft"])
    with pytest.raises(InvalidInput, match="there already"):
        derived("shipped", entry=[{"checkpoint": "natural", "label": "shipped"}])


def test_a_verdict_that_differs_anywhere_moves() -> None:
    claim = planned(claim=CLAIMS).claims[0]
    fails, stays = Judgement(claim, "fails", p_value=0.01), Judgement(claim)
    assert Row("", (stays, fails, fails)).moves
    assert not Row("", (fails, fails, fails)).moves


@pytest.mark.slow
def test_the_command_trains_what_is_missing_and_says_what_moves(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write(
        tmp_path / "tiny.toml", regimes=["natural"], suites=["fgsm"], limit=20, seeds=1, claim=CLAIMS[2:],
    )  # fmt: skip
    code = harness(
        ["study", "budget-sensitivity", str(file), "--entry", "natural", "--output", str(tmp_path / "out"), "--json"]
    )
    assert code == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["budgets"] == [0.5, 1.0, 2.0]
    assert [len(claim["verdicts"]) for claim in answer["claims"]] == [3]
    assert {path.name.rsplit("-s0", 1)[0] for path in (tmp_path / "out" / "checkpoints").glob("*.pt")} == {
        "natural", "natural-x0.5", "natural-x2",
    }  # fmt: skip
    assert Path(answer["report"]).parent.name == "budget-sensitivity"
