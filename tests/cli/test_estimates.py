"""``harness evaluate --estimate`` and ``harness estimate-cost``: what they print and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli._times import duration, seconds_of
from harness.errors import InvalidInput
from tests.cli.conftest import Harness

SHIPPED = Path(__file__).parents[2] / "checkpoints"
OWN = """
from dataclasses import dataclass

import torch

from harness.attacks import Attack, Proposal


@dataclass
class Own(Attack):
    ends: int
    claims: bool
    runs: int = 1
    steps: int = 100

    def start(self, batch, oracle, run):
        oracle.logits(batch.x)
        return {}, Proposal(batch.x, torch.full((len(batch),), self.claims))

    def step(self, batch, state, oracle, i):
        oracle.logits(batch.x)
        none = torch.zeros(len(batch), dtype=torch.bool)
        return state, Proposal(batch.x, none, ~none if i + 1 == self.ends else None)


def over(threat, classes):
    return Own(ends=5, claims=False)


def liar(threat, classes):
    return Own(ends=100, claims=True)
"""
ARGS = ("evaluate", "--checkpoint", "tiny", "--limit", "20", "--output", "out", "--workers", "1")


@pytest.mark.usefixtures("tiny")
def test_an_estimate_from_the_command_line(harness: Harness, folder: Path) -> None:
    # the untrained network has few survivors, and all of them are attacked
    code, out, _ = harness(*ARGS, "--eps", "0.001", "--estimate", "20")
    assert code == 0
    assert "estimate of autoattack on 20 digits test images" in out
    code, out, _ = harness(*ARGS, "--eps", "0.001", "--estimate", "20", "--json")
    shown = json.loads(out)
    assert (code, shown["kind"], shown["ran"]) == (0, "estimate", False)
    assert shown["low"] <= shown["robust_acc"] <= shown["high"]
    assert [path.name for path in (folder / "out").iterdir() if path.is_file()] == []
    harness("leaderboard", "--results", "out").refused()


@pytest.mark.usefixtures("tiny")
def test_what_an_estimate_refuses(harness: Harness) -> None:
    harness(*ARGS, "--suite", "pgd", "--estimate", "1").refused("the suite pgd has no opening")
    harness(*ARGS, "--budget", "soon").refused("90s, 10m or 2h, got 'soon'")
    assert harness(*ARGS, "--estimate", "1", "--shard", "1/2").code == 2


@pytest.mark.usefixtures("tiny")
def test_the_cost_of_an_evaluation(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.evaluation._forecast._FIRST_STEP", 0.2)
    monkeypatch.setattr("harness.evaluation._forecast._LATER_STEP", 0.1)
    code, out, _ = harness("estimate-cost", "--checkpoint", "tiny", "--eps", "0.001", "--limit", "40", "--json")
    shown = json.loads(out)
    assert code == 0
    assert [step["name"] for step in shown["steps"]] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert 0 <= shown["surviving"] <= shown["correct"] <= shown["n"] == 40
    survivors = shown["surviving"]
    passes = {step["name"]: (step["forward"], step["backward"]) for step in shown["steps"]}
    if survivors:
        assert passes["apgd-t"] == pytest.approx((900 * survivors, 900 * survivors), rel=0.3)
    assert passes["square"][1] == 0
    assert "will survive (probed for" in harness("estimate-cost", "--checkpoint", "tiny", "--limit", "9").out


@pytest.mark.parametrize("checkpoint", ["natural", "at_full"])
def test_a_probe_of_all_samples_counts_what_the_evaluation_does(
    harness: Harness, folder: Path, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.evaluation._forecast._FIRST_STEP", 600.0)  # so that no speed of a machine matters
    (folder / "short.toml").write_text(
        """
        step = [
          { name = "ce", attack = "apgd", loss = "ce", steps = 20 },
          { name = "t", attack = "apgd", loss = "dlr-targeted", targets = 3, steps = 20 },
        ]"""
    )
    where = ("--checkpoint", str(SHIPPED / f"{checkpoint}.pt"), "--limit", "80", "--suite", "short.toml")
    found = json.loads(harness("estimate-cost", *where, "--workers", "1", "--json").out)
    done = json.loads(harness("evaluate", *where, "--workers", "1", "--output", "out", "--json").out)
    assert found["correct"] == round(80 * done["clean_acc"])
    assert found["surviving"] == round(80 * done["robust_acc"])
    forecast, spent = (sum(step["forward"] + step["backward"] for step in each["steps"]) for each in (found, done))
    assert 0.9 <= forecast / spent <= 1.3


@pytest.mark.parametrize("steps", ['{ attack = "fgsm" }', '{ attack = "pgd", steps = 3, restarts = 1 }'])
def test_short_attacks(harness: Harness, folder: Path, steps: str) -> None:
    (folder / "short.toml").write_text(f"step = [{steps}]")
    where = ("--checkpoint", str(SHIPPED / "at_full.pt"), "--limit", "60", "--suite", "short.toml", "--workers", "1")
    found = json.loads(harness("estimate-cost", *where, "--json").out)["steps"][0]
    done = json.loads(harness("evaluate", *where, "--output", "out", "--json").out)["steps"][0]
    for passes in ("forward", "backward"):
        assert found[passes] == pytest.approx(done[passes], rel=0.1)


def test_a_probe_whose_time_is_over_at_once_still_measures(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    for constant in ("_forecast._FIRST_STEP", "_forecast._LATER_STEP", "_probe._PACE"):
        monkeypatch.setattr(f"harness.evaluation.{constant}", -100.0)
    asked = ("estimate-cost", "--checkpoint", str(SHIPPED / "at_full.pt"), "--limit", "70", "--workers", "1", "--json")
    found = json.loads(harness(*asked).out)
    assert [step["samples"] > 0 and step["forward"] > 0 < step["seconds"] for step in found["steps"]] == [True] * 4
    # what did not end counts as surviving: all iterations of 9 targets
    assert found["steps"][1]["forward"] == pytest.approx(900 * found["surviving"], rel=0.1)
    assert found["preparing_seconds"] > 0
    total = found["preparing_seconds"] + sum(step["seconds"] for step in found["steps"])
    assert found["seconds"] == pytest.approx(total)


def test_nothing_to_attack(harness: Harness) -> None:
    where = ("estimate-cost", "--checkpoint", str(SHIPPED / "natural.pt"), "--limit", "9", "--workers", "1")
    assert "of which about 9 are classified correctly" in harness(*where, "--suite", "clean").out
    found = json.loads(harness(*where, "--suite", "pgd", "--eps", "0", "--json").out)
    assert (found["surviving"], found["steps"][0]["forward"]) == (9, 0)
    found = json.loads(harness(*where, "--suite", "pgd", "--eps", "1", "--json").out)
    assert found["surviving"] == 0


@pytest.mark.parametrize("kind", ["over", "liar"])
def test_attacks_that_end_early_or_claim_too_much(harness: Harness, folder: Path, kind: str) -> None:
    (folder / "own.py").write_text(OWN)
    (folder / "own.toml").write_text(f'step = [{{ name = "own", attack = "own.py:{kind}" }}, {{ attack = "fgsm" }}]')
    where = (
        "--checkpoint",
        str(SHIPPED / "at_full.pt"),
        "--limit",
        "40",
        "--suite",
        "own.toml",
        "--workers",
        "1",
        "--trust-code",
    )
    found = json.loads(harness("estimate-cost", *where, "--json").out)
    done = json.loads(harness("evaluate", *where, "--output", "out", "--json").out)
    assert found["surviving"] == round(40 * done["robust_acc"]) > 0
    forecast, spent = (each["steps"][0]["forward"] for each in (found, done))
    assert forecast == pytest.approx(spent, rel=0.1)


def test_times() -> None:
    assert [seconds_of(text) for text in ("90s", "10m", "1.5h")] == [90, 600, 5400]
    assert [duration(seconds) for seconds in (48.4, 700, 12000)] == ["48 s", "12 min", "3 h 20 min"]
    for wrong in ("10", "m", "1 h", "-3s"):
        with pytest.raises(InvalidInput):
            seconds_of(wrong)
