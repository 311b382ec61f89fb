"""What is attacked again and what is not: the same verdicts are found under other names, and only the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import checkpoints, datasets, evaluation, models
from harness.checkpoints import Checkpoint, Parent
from harness.engine import runner
from harness.errors import InvalidInput
from harness.evaluation import Plan, Stored
from harness.models import Normalization
from harness.results import leaderboard, store
from harness.results.identity import identified
from harness.suites import Step, Suite
from tests.registry.material import registered, small
from tests.registry.test_lineage import train_bn
from tests.support import of_strong_suites

pytestmark = pytest.mark.usefixtures("unaudited")

DATA = datasets.load("digits", limit=20)
RESULTS = Path(__file__).resolve().parents[2] / "leaderboards" / "results"
VERSION_1 = Path(__file__).resolve().parents[1] / "results" / "version_1"


def planned(point: Checkpoint, **changes: Any) -> Plan:
    asked = {"threat": "Linf:0.15", "suite": "fgsm", "workers": 1, "device": "cpu"} | changes
    return evaluation.plan_checkpoint(point, asked.pop("data", DATA), **asked)


@pytest.fixture
def attacks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The suites that the engine has run."""
    ran: list[str] = []
    run = runner.run

    def counted(*args: Any, **how: Any) -> runner.Finding:
        ran.append(args[5].name)
        return run(*args, **how)

    monkeypatch.setattr(runner, "run", counted)
    return ran


def obtained(point: Checkpoint, root: Path, **changes: Any) -> Stored:
    return evaluation.obtain(planned(point, **changes), root)


OWN = """
from torch import nn
from parts import width

def net(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, classes))
"""


def own(folder: Path, text: str = OWN, parts: str = "width = 16\n") -> Checkpoint:
    """A checkpoint whose architecture is a file in ``folder``, which imports the module beside it."""
    folder.mkdir(exist_ok=True)
    (folder / "own.py").write_text(text)
    (folder / "parts.py").write_text(parts)
    model = models.build(f"{folder}/own.py:net", classes=10, shape=(1, 8, 8), seed=0).eval()
    return checkpoints.load(registered(folder, "own", model, overwrite=True))


def test_a_changed_source_file_is_not_answered_with_the_old_figure(tmp_path: Path, attacks: list[str]) -> None:
    root, folder = tmp_path / "results", tmp_path / "code"
    first = obtained(own(folder), root)
    assert not obtained(own(folder), root).ran
    changed = obtained(own(folder, OWN.replace("nn.ReLU", "nn.Sigmoid")), root)
    assert changed.ran
    assert changed.result.evaluation_id != first.result.evaluation_id
    assert obtained(own(folder, parts="width = 8 * 2\n"), root).ran  # a module that it imports
    assert not obtained(own(folder), root).ran
    (folder / "unrelated.py").write_text("width = 3\n")
    assert not obtained(own(folder), root).ran
    assert len(attacks) == 3


def test_where_a_source_file_lies_does_not_matter(tmp_path: Path) -> None:
    here = planned(own(tmp_path / "here"))
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert planned(checkpoints.load(tmp_path / "there" / "own.pt")).evaluation_id == here.evaluation_id


CHANGES: dict[str, Callable[[Path], tuple[Checkpoint, dict[str, Any]]]] = {
    "weights": lambda folder: (checkpoints.load(registered(folder, "own", small(1))), {}),
    "norm layer": lambda folder: (checkpoints.load(registered(folder, "own", small(norm_layer="group"))), {}),
    "normalization": lambda folder: (
        checkpoints.load(registered(folder, "own", small(normalization=Normalization((0.3,), (0.5,))))),
        {},
    ),
    "images": lambda folder: (plain(folder), {"data": datasets.load("digits", limit=19)}),
    "labels": lambda folder: (plain(folder), {"data": replace(DATA, y=(DATA.y + 1) % 10)}),
    "norm": lambda folder: (plain(folder), {"threat": "L2:0.15"}),
    "radius": lambda folder: (plain(folder), {"threat": "Linf:0.1500001"}),
    "attack": lambda folder: (plain(folder), {"suite": "clean"}),
    "parameters": lambda folder: (plain(folder), {"suite": Suite("fgsm", (Step("fgsm", "pgd", {"steps": 1}),))}),
    "name of the step": lambda folder: (plain(folder), {"suite": Suite("fgsm", (Step("other", "fgsm"),))}),
    "seed": lambda folder: (plain(folder), {"seed": 1}),
    "precision": lambda folder: (plain(folder), {"precision": "bf16"}),
    "statistics": lambda folder: (plain(folder), {"bn_stats": "batch"}),
}


def plain(folder: Path) -> Checkpoint:
    return checkpoints.load(registered(folder, "own"))


@pytest.mark.parametrize("what", CHANGES)
def test_what_decides_verdicts_is_another_evaluation(what: str, tmp_path: Path) -> None:
    before = planned(plain(tmp_path / "one"))
    point, changes = CHANGES[what](tmp_path / "two")
    assert planned(point, **changes).evaluation_id != before.evaluation_id


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 7},
        {"workers": 2},
        {"suite": Suite("mine", (Step("fgsm", "fgsm"),))},
        {"graphs": True},
        {"precision": "fp32"},
    ],
)
def test_what_decides_none_is_the_same_evaluation(changes: dict[str, Any], tmp_path: Path) -> None:
    point = plain(tmp_path)
    assert planned(point, **changes).evaluation_id == planned(point).evaluation_id


def test_the_reference_also_depends_on_its_batches(tmp_path: Path) -> None:
    ids = [
        planned(plain(tmp_path), suite="autoattack-reference", **how).evaluation_id
        for how in ({}, {"batch_size": 250}, {"batch_size": 100})
    ]
    assert ids[0] == ids[1] != ids[2]


def test_the_reference_stands_alone_in_a_suite(tmp_path: Path) -> None:
    mixed = Suite("mixed", (Step("fgsm", "fgsm"), Step("reference", "pyautoattack", {"version": "standard"})))
    with pytest.raises(InvalidInput, match="must hold pyautoattack alone, got fgsm, pyautoattack"):
        planned(plain(tmp_path), suite=mixed)


def child(folder: Path) -> Checkpoint:
    mother = checkpoints.load(registered(folder / "mothers", "mother", regime="natural"))
    model = small()
    train_bn(model)
    facts: dict[str, Any] = {"regime": "bn-ft", "parent": mother.as_parent()}
    return checkpoints.load(registered(folder / "children", "child", model, **facts))


def test_a_parent_that_moves_costs_no_attack(
    tmp_path: Path, attacks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root, point = tmp_path / "results", child(tmp_path)
    first = obtained(point, root, checkpoint_dir=tmp_path / "mothers")
    assert of_strong_suites(first.result.flags) == []
    (tmp_path / "elsewhere").mkdir()
    for path in (tmp_path / "mothers").iterdir():
        path.rename(tmp_path / "elsewhere" / path.name)
    lost = obtained(point, root, checkpoint_dir=tmp_path / "mothers")
    assert [flag.code for flag in of_strong_suites(lost.result.flags)] == ["lineage-unverified"]
    assert (lost.ran, lost.result.verdicts_from, first.path.is_file()) == (False, first.path.name, True)
    assert obtained(point, root, checkpoint_dir=tmp_path / "mothers") == lost  # and no third record
    found = obtained(point, root, checkpoint_dir=tmp_path / "elsewhere")
    assert of_strong_suites(found.result.flags) == []
    assert len(attacks) == 1
    (board,) = leaderboard.boards(result for _, result in store.read_all(root).results)
    assert of_strong_suites(board.rows[0].flags) == []  # what holds now, and not what held in between


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("second", {"regime": "natural"}),
        ("first", {"regime": "bn-head-ft"}),
        ("first", {"regime": "natural", "parent": Parent(name="other", weights_sha256="1" * 64)}),
        ("first", {"regime": None}),
        ("first", {"regime": "natural", "training": {"seed": 3}}),
    ],
)
def test_another_name_or_claim_is_another_record_of_the_same_verdicts(
    name: str, facts: dict[str, Any], tmp_path: Path, attacks: list[str]
) -> None:
    root = tmp_path / "results"
    first = obtained(checkpoints.load(registered(tmp_path / "one", "first", regime="natural")), root)
    point = checkpoints.load(registered(tmp_path / "two", name, **facts))
    again = obtained(point, root)
    assert (again.ran, len(attacks)) == (False, 1)
    result = again.result
    assert (result.checkpoint, result.model.regime) == (name, facts["regime"])
    assert result.evaluation_id == first.result.evaluation_id
    assert result.record_id != first.result.record_id
    assert result.verdicts_from == first.path.name
    assert of_strong_suites(result.flags) == list(planned(point).flags)
    figures = {"clean_acc", "robust_acc", "n", "steps", "seed", "environment", "started", "seconds", "harness_version"}
    assert result.model_dump(include=figures) == first.result.model_dump(include=figures)
    for array, other in store.read_verdicts(again.path).arrays().items():
        assert (store.read_verdicts(first.path).arrays()[array] == other).all()
    (board,) = leaderboard.boards(result for _, result in store.read_all(root).results)
    assert {row.checkpoint for row in board.rows} == {"first", name}
    assert next(row for row in board.rows if row.checkpoint == name).regime == facts["regime"]


@pytest.mark.audited
def test_flags_that_the_attack_raised_stay(tmp_path: Path) -> None:
    """Those known before it are found anew, those that it raised are part of what was found."""
    model = small()
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.zero_()  # gradients of zero
    root = tmp_path / "results"
    first = obtained(checkpoints.load(registered(tmp_path, "first", model)), root)
    raised = [flag.code for flag in first.result.flags]
    assert "zero-gradient" in raised
    again = obtained(checkpoints.load(registered(tmp_path, "second", model, regime="bn-ft")), root)
    assert not again.ran
    assert [flag.code for flag in again.result.flags] == ["lineage-unverified", *raised]


def test_force_runs_again(tmp_path: Path, attacks: list[str]) -> None:
    point, root = plain(tmp_path), tmp_path / "results"
    first = obtained(point, root)
    again = evaluation.obtain(planned(point), root, force=True)
    assert again.ran
    assert again.path != first.path
    assert len(attacks) == 2


def test_a_state_whose_result_is_stored_is_removed(tmp_path: Path, attacks: list[str]) -> None:
    """It was killed after it had stored the result and before it could remove its state."""
    point, states = checkpoints.load("natural"), tmp_path / "states"

    def leftover() -> Plan:
        plan = planned(point, state_dir=states)
        evaluation.run(plan, keep_state=True)
        return planned(point, state_dir=states)

    plan = leftover()
    first = evaluation.obtain(planned(point), tmp_path)
    assert list(states.rglob("pool.pt"))
    assert evaluation.obtain(plan, tmp_path) == replace(first, ran=False)
    assert list(states.iterdir()) == []
    # older than the result, it is of no use to a run that is forced
    plan = leftover()
    first.path.touch()
    evaluation.obtain(plan, tmp_path, force=True)
    assert list(states.iterdir()) == []
    # newer, it is of a forced run that was killed before it could store its own
    plan = leftover()
    plan.state.clear_if_older(first.path)
    assert list(states.rglob("pool.pt"))


@pytest.mark.parametrize("suite", ["clean", "pgd-20", "autoattack-reference"])
@pytest.mark.parametrize("bn_stats", ["stored", "batch"])
def test_both_hashes_follow_from_what_a_result_says(suite: str, bn_stats: str, tmp_path: Path) -> None:
    data = datasets.load("digits", limit=2)
    plan = planned(checkpoints.load("natural"), suite=suite, bn_stats=bn_stats, data=data, threat="Linf:0.9")
    result = evaluation.run(plan).result
    assert identified(result) == result
    stored = store.read(store.save(result, evaluation.run(plan).verdicts, tmp_path))
    assert identified(stored) == stored


@pytest.mark.parametrize(
    "path", sorted([*RESULTS.glob("*.json"), *VERSION_1.glob("*.json")]), ids=lambda path: path.stem
)
def test_results_that_come_with_the_package_are_found(path: Path) -> None:
    """Also one of schema version 1, whose hashes were made otherwise, and whose network came with the package then."""
    result = store.read(path)
    then = VERSION_1 / "checkpoints" if path.parent == VERSION_1 else None
    point = checkpoints.load(result.checkpoint, checkpoint_dir=then)
    threat = f"{result.threat.norm}:{result.threat.eps}"
    plan = planned(point, data=datasets.load(result.dataset.name), threat=threat, suite=result.suite)
    assert evaluation.find(plan, path.parent) == Stored(path, result, ran=False)


def test_one_name_of_several_checkpoints_finds_its_own(tmp_path: Path) -> None:
    points = [checkpoints.load(registered(tmp_path, name)) for name in ("b", "a")]
    stored = [obtained(point, tmp_path / "results") for point in points]
    assert [evaluation.find(planned(point), tmp_path / "results") for point in points] == [
        replace(stored[0], ran=False),
        stored[1],
    ]
