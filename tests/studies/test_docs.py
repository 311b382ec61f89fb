"""The page on studies names every field, and every study that comes along."""

from __future__ import annotations

import re
import tomllib

import pytest

from harness.studies import Study
from harness.studies.claims import parse
from harness.studies.spec import Entry
from harness.util.validation import validate
from tests.house._tree import ROOT

PAGE = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")


def first_words(text: str) -> set[str]:
    """The words in the first column of the tables."""
    cells = (line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    return {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}


def test_every_field_is_explained() -> None:
    of_study, _, rest = PAGE.partition("## The file")[2].partition("An entry is one row")
    assert first_words(of_study) >= set(Study.model_fields) - {"test_dataset", "train_limit", "name"}
    assert first_words(rest.partition("## Claims")[0]) == set(Entry.model_fields)
    assert all(f"`{name}`" in of_study for name in Study.model_fields)


def test_every_study_that_comes_along_is_named() -> None:
    shipped = {path.stem for path in (ROOT / "studies").glob("*.toml")}
    assert first_words(PAGE.partition("## The studies of this repository")[2]) == shipped


def test_the_example_is_a_study() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
    study = validate(Study, tomllib.loads(block) | {"name": "example"}, "the example")
    labels = [entry.label or entry.regime or "" for entry in study.entries()]
    assert [parse(claim.text, labels=labels).text for claim in study.claim]


@pytest.mark.parametrize(
    "line", re.findall(r"```text\n(.*?)```", PAGE, flags=re.DOTALL)[0].splitlines(), ids=lambda line: line
)
def test_the_claims_in_it_are_claims(line: str) -> None:
    labels = ("at-full", "bn-ft", "bn-optim", "bn-scratch", "natural")
    assert parse(line, labels=labels).text == line
