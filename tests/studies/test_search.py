"""Hyper-parameters are chosen alike for every entry, on validation data, and the study trains what was chosen."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import InvalidInput, ResultError, UnknownName
from harness.studies import Event, Plan, Study, plan, quick, write_report
from harness.studies import search as searching
from harness.studies.measurements import Network
from harness.studies.search import Choice, Trial, applied, choose, read, search
from tests.studies.made_up import measurements, planned, study
from tests.studies.test_judging import CLEAN, ROBUST

pytestmark = pytest.mark.usefixtures("unaudited")

LISTS = {"learning_rate": [0.02, 0.2], "weight_decay": [0.0, 0.001]}
TRAINING = {"epochs": 1, "batch_size": 20, "steps": 1, "validation": 0.2}


def searched(**changes: Any) -> Study:
    return study(**{"search": LISTS, "training": TRAINING, **changes})


def network(label: str, seed: int, log: list[tuple[float, float]], **training: float) -> Network:
    plain = measurements(planned(), ROBUST, CLEAN).networks[label][0]
    facts = {"learning_rate": 0.1, "weight_decay": 0.0} | training
    rows = tuple({"epoch": e, "validation_clean_acc": c, "validation_robust_acc": r} for e, (c, r) in enumerate(log))
    manifest = plain.manifest.model_copy(update={"training": facts, "name": f"{label}-{seed}"})
    return replace(plain, manifest=manifest, log=rows)


def test_robust_accuracy_decides_where_training_is_adversarial_and_clean_accuracy_elsewhere() -> None:
    made = planned()
    for label, best in (("bn-ft", 1), ("natural", 0)):
        networks = [network(label, 0, [(0.9, 0.1)]), network(label, 1, [(0.8, 0.3)]), network(label, 2, [(0.8, 0.3)])]
        assert choose(made.member(label), networks, keep="last").chosen == best


def test_the_epoch_that_is_kept_decides() -> None:
    made = planned()
    networks = [network("bn-ft", 0, [(0.9, 0.5), (0.9, 0.1)]), network("bn-ft", 1, [(0.9, 0.2), (0.9, 0.2)])]
    assert choose(made.member("bn-ft"), networks, keep="last").chosen == 1
    assert choose(made.member("bn-ft"), networks, keep="best").chosen == 0


def test_what_was_chosen_is_trained() -> None:
    trials = tuple(
        Trial(learning_rate=rate, weight_decay=0.5, clean=0.5, robust=0.1, network="x") for rate in (0.3, 0.7)
    )
    made = plan(applied(searched(), {"bn-ft": Choice(trials=trials, chosen=1)}))
    settings = {member.label: member.settings for member in made.members}
    assert settings["bn-ft"] is not None
    assert (settings["bn-ft"].learning_rate, settings["bn-ft"].weight_decay) == (0.7, 0.5)
    assert settings["natural"] is not None
    assert settings["natural"].learning_rate == 0.1
    assert [member.label for member in made.members] == [member.label for member in planned().members]


def test_lists_that_are_none() -> None:
    with pytest.raises(InvalidInput, match="at least two combinations"):
        searched(search={"learning_rate": [0.1]})
    with pytest.raises(InvalidInput, match="none of the study's"):
        searched(search=LISTS | {"seed": 1})
    with pytest.raises(InvalidInput, match="learning_rate"):
        searched(search={"learning_rate": [0.1, 0]})


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Plan, list[str]]]:
    """In the place of training: the larger the rate and the smaller the decay, the better."""
    asked: list[tuple[Plan, list[str]]] = []

    def run(made: Plan, *, output: Path, only: Iterable[str], evaluate: bool, **how: Any) -> Any:
        assert not evaluate
        labels = list(only)
        asked.append((made, labels))
        return type("Done", (), {"failures": {}, "trained": len(labels)})

    def collect(made: Plan, output: Path) -> Any:
        networks = {}
        for member in made.members:
            if "-lr" in member.label and member.settings is not None:
                rate, decay = member.settings.learning_rate, member.settings.weight_decay
                base = member.label.partition("-lr")[0]
                one = network(base, 0, [(rate - decay, rate - decay)], learning_rate=rate, weight_decay=decay)
                networks[member.label] = {made.seeds[0]: one}
        return type("Found", (), {"networks": networks})

    monkeypatch.setattr(searching, "run", run)
    monkeypatch.setattr(searching, "collect", collect)
    return asked


def test_parents_are_chosen_first_and_their_children_start_from_the_choice(
    trained: list[tuple[Plan, list[str]]], tmp_path: Path
) -> None:
    search(searched(), tmp_path, where={})
    assert [sorted({label.partition("-lr")[0] for label in only}) for _, only in trained] == [
        ["at-full", "natural"],
        ["bn-ft"],
    ]
    assert all(len(only) % 4 == 0 for _, only in trained)
    second = trained[1][0]
    natural = second.member("natural").settings
    assert natural is not None
    assert (natural.learning_rate, natural.weight_decay) == (0.2, 0.0)
    assert {second.member(label).parent for label in trained[1][1]} == {"natural"}
    assert {made.seeds for made, _ in trained} == {(1000,)}
    choices = read(searched(), tmp_path)
    assert set(choices) == {"natural", "bn-ft", "at-full"}
    assert all(choice.training == {"learning_rate": 0.2, "weight_decay": 0.0} for choice in choices.values())


def test_only_the_entries_that_are_named(trained: list[tuple[Plan, list[str]]], tmp_path: Path) -> None:
    search(searched(search=LISTS | {"entries": ["bn-ft"]}), tmp_path, where={})
    assert [len(only) for _, only in trained] == [4]
    with pytest.raises(UnknownName, match="bn-ft"):
        search(searched(search=LISTS | {"entries": ["bn-tf"]}), tmp_path, where={})


def test_a_study_is_not_planned_before_or_from_another_search(
    trained: list[tuple[Plan, list[str]]], tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="study search FILE"):
        read(searched(), tmp_path)
    search(searched(), tmp_path, where={})
    with pytest.raises(InvalidInput, match="another \\[search\\]"):
        read(searched(search={"learning_rate": [0.1, 0.3]}), tmp_path)
    (tmp_path / searching.NAME).write_text("{", encoding="utf-8")
    with pytest.raises(ResultError, match="cannot be read"):
        read(searched(), tmp_path)
    assert read(study(), tmp_path) == {}


def test_the_report_holds_every_combination(trained: list[tuple[Plan, list[str]]], tmp_path: Path) -> None:
    search(searched(), tmp_path, where={})
    made = plan(applied(searched(), read(searched(), tmp_path)))
    write_report(measurements(made, ROBUST, CLEAN), tmp_path)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| bn-ft | 0.2 | 0 | 20.0 | 20.0 | **chosen** |" in page
    assert page.count("**chosen**") == 3


@pytest.mark.slow
def test_a_search_trains_each_combination_once(tmp_path: Path) -> None:
    small = searched(
        regimes=["natural", "bn-ft"], train_limit=60, search={"learning_rate": [0.05, 0.1], "entries": ["bn-ft"]}
    )
    heard: list[Event] = []
    how = {"where": {}, "progress": heard.append, "workers": 2}
    assert sum(done.trained for done in search(small, tmp_path, **how)) == 3  # and the parent
    assert sum(done.trained for done in search(small, tmp_path, **how)) == 0
    table = json.loads((tmp_path / searching.NAME).read_text(encoding="utf-8"))
    assert [trial["learning_rate"] for trial in table["choices"]["bn-ft"]["trials"]] == [0.05, 0.1]
    assert all(0 <= trial["robust"] <= trial["clean"] + 0.5 for trial in table["choices"]["bn-ft"]["trials"])


def test_a_search_without_a_validation_split_is_refused() -> None:
    plain = network("bn-ft", 0, [])
    with pytest.raises(InvalidInput, match="validation above 0"):
        choose(planned().member("bn-ft"), [plain], keep="last")


def test_choices_of_a_quick_variant_are_none_of_the_study(tmp_path: Path) -> None:
    whole = study(search={"learning_rate": [0.1, 0.01]})
    short = quick(whole)
    assert short.search is not None
    noted = searching._Searched(search=short.search, choices={}, study=short.name)
    (tmp_path / searching.NAME).write_text(noted.model_dump_json(), encoding="utf-8")
    assert read(short, tmp_path) == {}
    with pytest.raises(InvalidInput, match="another variant"):
        read(whole, tmp_path)
