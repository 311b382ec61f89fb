"""Everything that is wrong with a study is one sentence, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.studies import plan, read
from tests.studies.made_up import write


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"regmies": ["natural"]}, ["unknown field 'regmies'", "did you mean 'regimes'?"]),
        ({"entry": [{"regmie": "natural"}]}, ["'entry.0.regmie'", "did you mean 'regime'?"]),
        ({"training": {"epoch": 3}}, ["unknown field 'epoch'", "did you mean 'epochs'?"]),
        ({"training": {"seed": 3}}, ["seed", "use the study's seeds"]),
        ({"training": {"epochs": 0}}, ["epochs"]),
        ({"regimes": ["naturel"]}, ["unknown regime 'naturel'", "did you mean 'natural'?"]),
        ({"regimes": []}, ["no entries"]),
        ({"regimes": ["natural", "natural"]}, ["two entries", "'natural'"]),
        ({"regimes": ["bn-ft"]}, ["'bn-ft' starts from a 'natural' network", "no such entry"]),
        ({"regimes": ["natural", "bn-stats-only"]}, ["'bn-stats-only' starts from any parent"]),
        ({"entry": [{"regime": "natural", "label": "a", "parent": "at-full"}]}, ["starts at random"]),
        ({"entry": [{"regime": "bn-ft", "label": "a", "parent": "b"}]}, ["'b', which the study lacks"]),
        ({"entry": [{"label": "a"}]}, ["a regime or a checkpoint"]),
        ({"entry": [{"regime": "natural", "label": "a b"}]}, ["label"]),
        ({"entry": [{"regime": "at-full", "label": "a", "change": {"los": "mixed"}}]}, ["did you mean 'loss'?"]),
        ({"entry": [{"regime": "at-full", "label": "a", "change": {"trained": []}}]}, ["trains nothing"]),
        ({"entry": [{"regime": "at-full", "label": "a", "change": {"trained": ["group:blok1"]}}]}, ["'group:blok1'"]),
        ({"entry": [{"regime": "bn-ft", "label": "a", "architecture": "lenet5"}]}, ["starts from a parent"]),
        (
            {"entry": [{"regime": "at-full", "label": "a", "change": {"norm_layer": "dual"}}]},
            ["deploy"],
        ),
        (
            {
                "entry": [
                    {"regime": "gn", "label": "without"},
                    {"regime": "bn-ft", "label": "a", "parent": "without"},
                ]
            },
            ["no BN layer"],
        ),
        (
            {
                "entry": [
                    {"regime": "bn-ft", "label": "a", "parent": "b"},
                    {"regime": "bn-ft", "label": "b", "parent": "a"},
                ]
            },
            ["circle", " > "],
        ),
        ({"architecture": "digits-resnte"}, ["digits-resnte", "digits-resnet"]),
        ({"suites": ["pgd", "autoatack"]}, ["unknown suite 'autoatack'", "did you mean 'autoattack'?"]),
        ({"suites": []}, ["suites"]),
        ({"seeds": 0}, ["seeds"]),
        ({"seeds": [1, 1]}, ["seeds"]),
        ({"threat": "Linf"}, ["NORM:EPS"]),
        ({"curve": {"eps": [0.1, "big"]}}, ["'big'"]),
        ({"bn_stats": ["stored", "other"]}, ["bn_stats"]),
        ({"claim": [{"text": "robust(bn-scratch) > 5"}]}, ["'bn-scratch', which the study lacks"]),
        ({"claim": [{"text": "robust(bn-ft) > "}]}, ["at character"]),
        ({"claim": [{"text": "robust(bn-ft, suite='autoattack') > 5"}]}, ["autoattack at eps 0.15", "pgd-20"]),
        ({"claim": [{"text": "robust(bn-ft, eps='0.3') > 5"}]}, ["at eps 0.3", "the study measures"]),
        ({"claim": [{"text": "robust(bn-ft, eps='x') > 5"}]}, ["'x'"]),
        ({"entry": [{"checkpoint": "nobody"}]}, ["unknown checkpoint 'nobody'"]),
        ({"entry": [{"checkpoint": "natural", "label": "a", "training": {"epochs": 1}}]}, ["takes no change"]),
        (
            {"entry": [{"checkpoint": "natural", "label": "a", "published": {"autoattack": 3}}]},
            ["published figure for 'autoattack'", "clean, fgsm, pgd-20"],
        ),
        ({"dataset": "digit"}, ["unknown data set 'digit'"]),
    ],
)
def test_one_sentence(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(HarnessError) as caught:
        plan(read(write(tmp_path / "study.toml", **changes)))
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="cannot read the study"):
        read(tmp_path / "nothing.toml")


def test_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text("name = ", encoding="utf-8")
    with pytest.raises(HarnessError, match="is not valid TOML"):
        read(path)
