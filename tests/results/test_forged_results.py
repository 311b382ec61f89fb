"""Results that somebody wrote by hand, their hashes right: they stop no board, and claim nothing unseen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.boards.suites_held import deviation
from harness.cli import run
from harness.errors import InvalidInput
from harness.results import store
from harness.results._evidence import content_sha256
from harness.results.compare import compare
from harness.results.identity import identified
from harness.results.record import Result
from tests.house._tree import ROOT

SHIPPED = ROOT / "leaderboards" / "results"


def forged(folder: Path, name: str, **changes: Any) -> Path:
    """A shipped result of PGD with other values, and with the hashes that follow from them."""
    (source,) = SHIPPED.glob(f"{name}__pgd__*.json")
    content = json.loads(source.read_text())
    for beside in (content["samples"], content["adversarial"]["file"]):
        shutil.copy(source.with_name(beside), folder)
    for field, value in changes.items():
        at, *inner = field.split("__")
        if inner:
            content[at][inner[0]] = value
        else:
            content[at] = value
    made = identified(Result.model_validate(content, strict=False))
    content |= {"evaluation_id": made.evaluation_id, "record_id": made.record_id}
    content["content_sha256"] = content_sha256(content)
    path = folder / f"forged-{name}.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("n", [2**62, 10**12])
def test_a_number_of_samples_that_no_memory_holds_leaves_out_that_result_alone(tmp_path: Path, n: int) -> None:
    forged(tmp_path, "natural")
    bad = forged(tmp_path, "bn_ft", n=n, dataset__size=n, clean_acc=1.0, robust_acc=1.0, steps=[], adversarial=None)
    (board,) = harness.leaderboard(tmp_path)
    assert [row.checkpoint for row in board.rows] == ["natural"]
    ((file, reason),) = board.left_out
    assert file == bad.name
    assert reason.startswith(f"{bad.name}: the verdicts bn_ft__pgd")  # and not where they lie


def test_fewer_samples_of_the_same_data_are_no_point_of_the_same_curve(tmp_path: Path) -> None:
    forged(tmp_path, "natural")
    fewer = store.read(forged(tmp_path, "bn_ft")).model_copy(update={"n": 250, "checkpoint": "natural"})
    verdicts = store.read_verdicts(tmp_path / "forged-bn_ft.json")
    arrays = {name: array[:250] for name, array in verdicts.arrays().items()}
    halves = type(verdicts)(**arrays)
    correct, right = arrays["clean_pred"] == arrays["y"], arrays["robust"]
    steps = [fewer.steps[0].model_copy(update={"before": int(correct.sum()), "after": int(right.sum())})]
    figures = {"clean_acc": float(correct.mean()), "robust_acc": float(right.mean()), "steps": steps}
    threat = fewer.threat.model_copy(update={"eps": "0.3", "radius": 0.3})
    natural = store.read(tmp_path / "forged-natural.json")
    update = {**figures, "threat": threat, "adversarial": None, "model": natural.model}
    (tmp_path / "forged-bn_ft.json").unlink()
    store.save(identified(fewer.model_copy(update=update)), halves, tmp_path)
    assert sorted(len(board.rows) for board in harness.leaderboard(tmp_path)) == [1, 1]


def test_long_names_are_shortened_and_stop_no_board(tmp_path: Path) -> None:
    forged(tmp_path, "natural")
    forged(tmp_path, "bn_ft", dataset__name="d" * 300)
    forged(tmp_path, "at_full", dataset__name="d" * 301)
    forged(tmp_path, "bn_head_ft", adversarial__file="a" * 300)
    harness.leaderboard(tmp_path, output=tmp_path / "boards", formats=["csv"])
    written = sorted(path.name for path in (tmp_path / "boards").iterdir())
    assert written[-1] == "digits-Linf.csv"
    assert len(written) == 3
    assert all(len(name) < 200 for name in written)


def test_another_attack_under_the_name_of_a_suite_is_flagged(tmp_path: Path) -> None:
    forged(tmp_path, "natural", suite="autoattack", flags=[])
    (board,) = harness.leaderboard(tmp_path)
    (flag,) = board.rows[0].flags
    assert flag.code == "steps-differ"
    assert "what is called autoattack is not that suite: 1 steps ran, the suite has 4" in flag.text


def test_of_one_name_and_other_images_nothing_is_compared(tmp_path: Path) -> None:
    one, other = forged(tmp_path, "natural"), forged(tmp_path, "bn_ft", dataset__sha256="0" * 64)
    with pytest.raises(InvalidInput, match="other images under the same name, their hashes differ"):
        compare([(store.read(path), store.read_verdicts(path)) for path in (one, other)])


def test_a_radius_may_be_written_in_two_ways(tmp_path: Path) -> None:
    one, other = forged(tmp_path, "natural"), forged(tmp_path, "bn_ft", threat__eps="15/100")
    found = compare([(store.read(path), store.read_verdicts(path)) for path in (one, other)])
    assert found.pairs[0].n == 500


def test_line_breaks_and_control_characters_reach_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forged(tmp_path, "natural", checkpoint="n\x1b[2J\nforged")
    path = forged(tmp_path, "bn_ft", dataset__name="a\x1b[2J\nwritten nothing")
    path.rename(tmp_path / "b\x1b[2J\nleft out.json")
    (tmp_path / "c\x1b[2J\nx.json").write_text("{}")
    assert run(["leaderboard", "--results", str(tmp_path), "--output", str(tmp_path / "boards")]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert not {"forged", "written nothing", "left out.json"} & {line.strip()[:14] for line in out.splitlines()}


def test_of_what_is_shipped_every_step_is_the_suites() -> None:
    found = store.read_all(SHIPPED).results
    assert {deviation(result) for _, result in found} == {None}
    _, weaker = next(pair for pair in found if pair[1].suite == "autoattack")
    steps = [weaker.steps[0].model_copy(update={"parameters": {"loss": "ce", "steps": 10}}), *weaker.steps[1:]]
    said = deviation(weaker.model_copy(update={"steps": steps}))
    assert said == "step 1 was apgd-ce (apgd loss=ce steps=10), the suite's is apgd-ce (apgd loss=ce steps=100)"
