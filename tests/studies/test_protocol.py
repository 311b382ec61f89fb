"""What a source published is set beside what a study does, and never called faithful where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import regimes
from harness.errors import InvalidInput
from harness.regimes import Fact
from harness.studies import write_report
from harness.studies.protocol import Compared, compare
from harness.training import Settings
from tests.studies.made_up import measurements, planned
from tests.studies.test_judging import CLEAN, ROBUST


def facts(**changes: Any) -> dict[str, Compared]:
    plan = planned(**changes)
    return {fact.field: fact for fact in compare(plan, plan.member("at-full"))}


def test_each_fact_is_faithful_ours_or_unknown() -> None:
    found = facts(training={"epochs": 1, "batch_size": 128, "steps": 10, "schedule": "step", "validation": 0})
    states = {name: fact.state for name, fact in found.items()}
    assert states["batch_size"] == states["steps"] == states["schedule"] == states["attack"] == "faithful"
    assert states["dataset"] == states["threat"] == states["weight_decay"] == states["crafting_mode"] == "ours"
    assert (found["dataset"].theirs, found["dataset"].ours) == ("cifar10", "digits")
    assert found["crafting_mode"].source == "code"


def test_fractions_and_threats_are_compared_as_numbers() -> None:
    exact = {"epochs": 1, "batch_size": 20, "steps": 1, "validation": 0, "step_size": 2 / 255}
    assert facts(training=exact, threat="Linf:0.0313725490196078")["step_size"].state == "faithful"
    assert facts(training=exact, threat="Linf:8/255")["threat"].state == "faithful"
    assert facts(training=exact | {"step_size": 0.0079}, threat="Linf:8/255")["step_size"].state == "ours"


def test_what_is_not_known_is_said_and_what_cannot_be_set_too() -> None:
    own = {"protocol": [{"field": "dropout", "value": 0.25, "source": "paper"}]}
    entry = [{"regime": "bn-scratch-natural", "label": "dropped-out", "change": own}]
    plan = planned(regimes=["natural", "bn-ft"], entry=entry, claim=[])
    walter = {fact.field: fact for fact in compare(plan, plan.member("bn-ft"))}
    assert walter["epochs"] == Compared("epochs", "not known", "unknown", "1", "unknown")
    assert walter["architecture"].ours == "digits-resnet"  # the parent's
    assert compare(plan, plan.member("dropped-out")) == (Compared("dropout", "0.25", "paper", "-", "not set here"),)


def test_the_report_holds_the_table(tmp_path: Path) -> None:
    write_report(measurements(planned(claim=[]), ROBUST, CLEAN), tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| Madry 2018 | at-full | batch size | 128 | code | 20 | ours |" in text
    assert "| Walter 2022 | bn-ft | epochs | not known | unknown | 1 | unknown |" in text


def test_a_fact_has_a_value_and_a_source_or_neither() -> None:
    for wrong in ({"field": "epochs", "value": 3}, {"field": "epochs", "source": "paper"}):
        with pytest.raises(InvalidInput, match="needs a value and a source"):
            Fact.model_validate(wrong)


@pytest.mark.parametrize("name", regimes.names())
def test_facts_that_name_a_choice_name_a_known_one(name: str) -> None:
    """A misspelt field or choice of ours would count as one that cannot be set, or as a difference."""
    settings = set(Settings.model_fields)
    for fact in regimes.get(name).protocol:
        if fact.field in settings and fact.value is not None and fact.field not in ("threat", "step_size"):
            Settings.model_validate({fact.field: fact.value})
