"""``harness compare``: which results it takes, what it prints, and what it refuses."""

from __future__ import annotations

import json

from harness.results import store
from tests.cli.conftest import Harness
from tests.house._tree import ROOT

SHIPPED = ("--results", str(ROOT / "leaderboards" / "results"))


def test_a_pair_of_shipped_checkpoints(harness: Harness) -> None:
    code, out, _ = harness("compare", "bn_ft", "natural", *SHIPPED)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "bn_ft against natural, 500 common samples"
    assert "bn_ft robust 45 163" in [" ".join(line.split()) for line in lines]
    assert "difference +32.2 points" in out
    assert "p < 0.001, Holm-corrected < 0.001: more than chance explains" in out
    assert "robust in natural only: samples 199, 365" in out


def test_several_as_json_and_by_file(harness: Harness) -> None:
    file = next(path for path, r in store.read_all(ROOT / "leaderboards" / "results").results if r.label == "at_full")
    names = ("bn_ft.pt", "natural", str(file))
    printed = json.loads(harness("compare", *names, "--suite", "autoattack", *SHIPPED, "--json").out)
    pairs = printed["pairs"]
    assert [(pair["first"], pair["second"]) for pair in pairs] == [
        ("bn_ft", "natural"),
        ("bn_ft", "at_full"),
        ("natural", "at_full"),
    ]
    assert all(pair["both"] + pair["only_first"] + pair["only_second"] + pair["neither"] == 500 for pair in pairs)
    assert pairs[0]["only_second_indices"] == [199, 365]
    assert pairs[0]["p_value"] <= pairs[0]["p_value_holm"]


def test_what_cannot_be_compared(harness: Harness) -> None:
    harness("compare", "bn_ft", *SHIPPED).refused("at least two", code=2)
    harness("compare", "bn_ft", "bn_tf", *SHIPPED).refused("unknown evaluated checkpoint", "did you mean 'bn_ft'?")
    harness("compare", "bn_ft", "natural", "--suite", "square", *SHIPPED).refused("no result of suite square")
    harness("compare", "bn_ft", "natural", "--results", "nowhere").refused("no results folder nowhere")
    harness("compare", "a.json", "b.json").refused("cannot read the result a.json")
