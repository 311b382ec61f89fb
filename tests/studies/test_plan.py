"""What a study comes to: who starts from whom, what is measured, and when a training counts as the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import InvalidInput
from harness.studies import plan, quick, read
from harness.studies.jobs import Folders
from harness.studies.runner import missing
from tests.studies.made_up import planned, study, write

ROOT = Path(__file__).resolve().parents[2]


def test_parents_come_first() -> None:
    made = planned(regimes=["bn-ft", "keep-early", "at-full", "natural"])
    assert made.order.index("natural") < made.order.index("bn-ft")
    assert made.order.index("at-full") < made.order.index("keep-early")
    assert [member.label for member in made.members] == ["bn-ft", "keep-early", "at-full", "natural"]


def test_jobs_need_what_they_start_from(tmp_path: Path) -> None:
    jobs = missing(planned(seeds=2), Folders(tmp_path))
    needs = {job.name: job.needs for job in jobs}
    assert needs["train bn-ft seed 1"] == ("train natural seed 1",)
    assert needs["train natural seed 1"] == ()
    assert needs["evaluate bn-ft seed 1 pgd-20 0.15 stored"] == ("train bn-ft seed 1",)
    assert len(jobs) == 2 * 3 * (1 + 2)
    assert [job.name.split()[1] for job in jobs[:2]] == ["natural", "natural"]


def test_only_some_are_done_and_what_they_start_from(tmp_path: Path) -> None:
    jobs = missing(planned(seeds=1), Folders(tmp_path), only=("bn-ft",))
    assert sorted({" ".join(job.name.split()[:2]) for job in jobs}) == [
        "evaluate bn-ft",
        "train bn-ft",
        "train natural",
    ]


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"title": "another", "suites": ["fgsm"], "limit": 7, "seeds": 2}, True),
        ({"training": {"epochs": 2, "batch_size": 20, "steps": 1, "validation": 0}}, False),
        ({"train_limit": 41}, False),
        ({"keep": "best"}, False),
        ({"threat": "Linf:0.1"}, False),
    ],
)
def test_a_training_is_known_by_all_that_decides_it(changes: dict[str, Any], same: bool) -> None:
    before, after = planned().names, planned(**changes).names
    assert (before["bn-ft", 1] == after["bn-ft", 1]) is same


def test_a_parent_is_part_of_what_is_trained_from_it() -> None:
    entry = {"regime": "natural", "label": "other", "training": {"epochs": 2}}
    child = {"regime": "bn-ft", "label": "bn-ft", "parent": "natural"}
    before = planned(regimes=["natural"], entry=[entry, child])
    after = planned(regimes=["natural"], entry=[entry, child | {"parent": "other"}])
    assert before.names["natural", 0] == after.names["natural", 0]
    assert before.names["bn-ft", 0] != after.names["bn-ft", 0]


def test_seeds_and_networks_are_told_apart() -> None:
    names = planned().names
    assert len(set(names.values())) == len(names) == 9


def test_a_changed_regime_does_not_pass_for_the_original() -> None:
    made = planned(entry=[{"regime": "at-full", "label": "AT_train", "change": {"crafting_mode": "train"}}])
    regime = made.member("AT_train").regime
    assert regime is not None
    assert (regime.name, regime.crafting_mode, regime.loss) == ("at-train", "train", "adversarial")


def test_a_change_keeps_what_phases_take_from_the_regime() -> None:
    made = planned(
        entry=[{"regime": "partial-at", "label": "mixed", "change": {"loss": "mixed"}}], training={"epochs": 3}
    )
    regime = made.member("mixed").regime
    assert regime is not None
    assert [stage.loss for stage in regime.stages()] == ["mixed", "mixed"]


def test_what_is_measured() -> None:
    made = planned(curve={"eps": [0.05, "0.15"]}, bn_stats=["stored", "batch"], regimes=["natural", "gn"])
    at = [(m.suite, m.threat.eps, m.bn_stats) for m in made.measures]
    # pgd-20 at 0.15 is a suite and on the curve, and is measured once
    assert at == [
        (suite, eps, stats)
        for stats in ("stored", "batch")
        for suite, eps in (("fgsm", "0.15"), ("pgd-20", "0.15"), ("pgd-20", "0.05"))
    ]
    assert (made.primary.suite, made.primary.bn_stats) == ("pgd-20", "stored")
    assert {m.bn_stats for m in made.measures_of(made.member("gn"))} == {"stored"}
    assert len(made.measures_of(made.member("natural"))) == 6


@pytest.mark.parametrize(("wanted", "seeds"), [(1, (4,)), (2, (4, 2)), (4, (4, 2, 0, 1)), (None, (4, 2))])
def test_fewer_seeds_or_more(wanted: int | None, seeds: tuple[int, ...]) -> None:
    assert plan(study(seeds=[4, 2]), seeds=wanted).seeds == seeds


def test_files_are_found_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('loss = "mixed"\n', encoding="utf-8")
    (tmp_path / "quick.toml").write_text('[[step]]\nattack = "fgsm"\n', encoding="utf-8")
    made = plan(read(write(tmp_path / "study.toml", regimes=["mine.toml"], suites=["quick.toml"])))
    assert [member.label for member in made.members] == ["mine"]
    assert made.primary.suite == "quick"


def test_params_of_a_checkpoint_that_does_not_say(tmp_path: Path) -> None:
    from harness import checkpoints

    known = checkpoints.load("natural")
    checkpoints.save(known.model, directory=tmp_path, name="foreign")
    claims = [{"text": "params(foreign) < 1"}]
    with pytest.raises(InvalidInput, match="does not say how many"):
        plan(study(regimes=[], entry=[{"checkpoint": "foreign"}], claim=claims), checkpoint_dir=tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_studies_can_be_read(path: Path) -> None:
    shipped = read(path)
    assert shipped.name == path.stem
    assert all((shipped.title, shipped.question, shipped.source, shipped.claim))


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*-digits.toml")), ids=lambda path: path.stem)
def test_shipped_studies_of_digits_can_be_run(path: Path) -> None:
    made = plan(read(path))
    assert len(made.claims) == len(made.study.claim)
    assert len(made.seeds) >= 3, "two seeds say little of other seeds"


def test_a_quick_variant_is_another_study_that_says_so() -> None:
    whole = read(ROOT / "studies" / "fragile-features-digits.toml")
    short = quick(whole)
    assert short.name == "fragile-features-digits-quick"
    assert "quick variant: a tenth of the epochs, one seed, 100 images" in short.title
    made = plan(short)
    assert [member.settings.epochs for member in made.members if member.settings] == [12] * 7
    assert (made.seeds, len(made.test_set)) == ((0,), 100)
    assert set(made.names.values()).isdisjoint(plan(whole).names.values())
    assert [claim.text for claim in made.claims] == [claim.text for claim in plan(whole).claims]


@pytest.mark.parametrize(
    ("training", "entry", "expected"), [({}, {}, [1, 1]), ({"epochs": 3}, {}, [1, 1]), ({}, {"epochs": 200}, [1, 20])]
)
def test_a_quick_variant_cuts_the_epochs_of_every_entry(
    training: dict[str, int], entry: dict[str, int], expected: list[int]
) -> None:
    entries = [{"regime": "at-full", "training": entry}]
    short = quick(study(regimes=["natural"], entry=entries, training=training, limit=20))
    made = plan(short)
    assert [member.settings.epochs for member in made.members if member.settings] == expected
    assert len(made.test_set) == 20
