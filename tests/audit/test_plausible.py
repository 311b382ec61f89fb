"""Figures that can hardly be meant are said, and those that can are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness import evaluation
from harness.audit import plausible
from harness.evaluation import examine
from harness.threat import ThreatModel
from tests.evaluation.test_caller_state import MODEL, X, Y


def codes(flags: Any) -> list[str]:
    return [flag.code for flag in flags]


@pytest.mark.parametrize(
    ("threat", "said"),
    [
        ("Linf:8", "eps-covers-all"),
        ("Linf:1", "eps-covers-all"),
        ("L2:56", "eps-covers-all"),
        ("L1:3072", "eps-covers-all"),
        ("Linf:1e-7", "eps-tiny"),
        ("L2:1e-6", "eps-tiny"),
        ("Linf:8/255", None),
        ("Linf:0.99", None),
        ("Linf:1e-5", None),
        ("L2:55", None),
        ("L1:12", None),
        ("Linf:0", None),
    ],
)
def test_radii(threat: str, said: str | None) -> None:
    flags = list(plausible.radius(ThreatModel.parse(threat), (3, 32, 32)))
    assert codes(flags) == ([said] if said else [])


def test_levels_are_explained_and_reach_the_result() -> None:
    (flag,) = examine(MODEL, X, Y, threat="Linf:8", suite="pgd-20", workers=1).result.flags
    assert "for 8 levels of 255 write 8/255" in str(flag)
    plan = evaluation.plan_model(MODEL, X, Y, threat="Linf:8")
    assert codes(plan.flags) == ["eps-covers-all"]


def test_accuracy_of_guessing() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(10, size=200)
    assert codes(plausible.guessing(y, rng.integers(10, size=200), 10)) == ["clean-by-chance"]
    assert codes(plausible.guessing(y, np.zeros(200, int), 10)) == ["labels-never-predicted", "clean-by-chance"]
    assert codes(plausible.guessing(y, (y + 1) % 10, 10)) == ["clean-by-chance"]
    assert codes(plausible.guessing(y, y, 10)) == []
    assert codes(plausible.guessing(y, np.where(rng.random(200) < 0.3, y, 0), 10)) == []
    assert codes(plausible.guessing(y[:20], y[:20] + 1, 10)) == []


def test_names_of_classes() -> None:
    digits = tuple("0123456789")
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    assert codes(plausible.class_names(digits, words, "digits")) == ["class-names"]
    assert codes(plausible.class_names(("Air Plane", "car"), ("airplane", "Car"), "x")) == []
    assert codes(plausible.class_names(digits, words[:5], "digits")) == []


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("suite", ["pgd-20", "autoattack"])
def test_a_radius_of_zero_leaves_clean_accuracy(norm: str, suite: str) -> None:
    result = examine(MODEL, X, Y, threat=f"{norm}:0", suite=suite, workers=1).result
    assert result.robust_acc == result.clean_acc == 1.0
    assert {step.before - step.after for step in result.steps} == {0}
    assert [flag for flag in result.flags if flag.doubtful] == []
