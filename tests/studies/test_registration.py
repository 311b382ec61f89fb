"""Claims are registered before anything is evaluated, and a report says whether it judges those."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import InvalidInput, ResultError
from harness.studies import Measurements, Plan, registration, write_report
from tests.studies.made_up import measurements, planned
from tests.studies.test_judging import CLEAN, ROBUST

CLAIMS = [{"text": "robust(at-full) > robust(bn-ft)"}, {"text": "robust(natural) > chance"}]


def made(**changes: Any) -> Plan:
    return planned(**{"claim": CLAIMS, **changes})


def page(plan: Plan, output: Path) -> str:
    write_report(measurements(plan, ROBUST, CLEAN), output)
    return (output / "report.md").read_text(encoding="utf-8")


def test_a_report_of_what_was_registered_says_so(tmp_path: Path) -> None:
    first = registration.register(made(), tmp_path)
    assert registration.register(made(), tmp_path) == first
    text = page(made(), tmp_path)
    assert f"registered on {first.registered} (SHA-256 `{first.sha256}`), before anything was evaluated." in text
    assert "Not as registered" not in text


def test_results_that_are_older_than_the_registration_are_named(tmp_path: Path) -> None:
    plan = made()
    registration.register(plan, tmp_path)
    older = measurements(plan, ROBUST, CLEAN, started="2025-01-01T00:00:00+00:00").networks["natural"]
    found = measurements(plan, ROBUST, CLEAN)
    write_report(Measurements(plan, {**found.networks, "natural": older}), tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "**Evaluated before that:** `natural` (6 of 6 evaluations)." in text
    assert "before anything" not in text


def test_moments_without_an_offset_are_in_utc(tmp_path: Path) -> None:
    plan = made()
    registration.register(plan, tmp_path)
    found = measurements(plan, ROBUST, CLEAN, started="2100-01-01T00:00:00")
    assert "before anything was evaluated." in registration.describe(found, tmp_path)


def test_a_result_that_does_not_say_when_it_was_begun(tmp_path: Path) -> None:
    plan = made()
    registration.register(plan, tmp_path)
    with pytest.raises(ResultError, match=r"does not say when it was begun: .*'soon'"):
        registration.describe(measurements(plan, ROBUST, CLEAN, started="soon"), tmp_path)


def test_a_report_without_registration_says_so(tmp_path: Path) -> None:
    assert "were not registered before the study was run" in page(made(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"claim": [*CLAIMS, {"text": "robust(bn-ft) > 5"}]}, "added claim `robust(bn-ft) > 5`"),
        ({"claim": CLAIMS[:1]}, "missing claim `robust(natural) > chance`"),
        ({"seeds": 4}, "other seeds"),
        ({"minimal_effect": 1.0}, "other minimal effect"),
        ({"training": {"epochs": 2, "batch_size": 20, "steps": 1, "validation": 0}}, "other networks"),
        ({"suites": ["fgsm", "pgd"]}, "other decided by"),
        ({"limit": 100}, "other test data"),
    ],
)
def test_what_differs_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    registration.register(made(), tmp_path)
    assert words in registration.describe(Measurements(made(**changes)), tmp_path)
    with pytest.raises(InvalidInput, match="registers another version"):
        registration.register(made(**changes), tmp_path)


def test_nothing_is_registered_after_an_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = measurements(made(), ROBUST, CLEAN)
    monkeypatch.setattr(registration, "collect", lambda plan, output: found)
    with pytest.raises(InvalidInput, match="before anything is evaluated"):
        registration.register(made(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_registration_of_the_first_version_is_read(tmp_path: Path) -> None:
    """Its hash left the moment out."""
    first = registration.register(made(), tmp_path)
    table = first.model_dump(mode="json") | {"sha256": registration._digest(first.content)}
    (tmp_path / "registration.json").write_text(json.dumps(table), encoding="utf-8")
    assert registration.read(tmp_path) is not None


def test_a_changed_registration_is_refused(tmp_path: Path) -> None:
    registration.register(made(), tmp_path)
    (path,) = tmp_path.iterdir()
    table = json.loads(path.read_text(encoding="utf-8"))
    table["content"]["claims"].pop()
    path.write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(ResultError, match="was changed"):
        registration.read(tmp_path)
    (tmp_path / "registration.json").unlink()
    registration.register(made(), tmp_path)
    table = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(table | {"registered": "2020-01-01T00:00:00+00:00"}), encoding="utf-8")
    with pytest.raises(ResultError, match="was changed"):
        registration.read(tmp_path)
    path.write_text(json.dumps(table | {"registered": "yesterday"}), encoding="utf-8")
    with pytest.raises(ResultError, match="cannot be read"):
        registration.read(tmp_path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ResultError, match="cannot be read"):
        registration.read(tmp_path)
