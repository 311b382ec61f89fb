"""``harness submit`` and ``harness publish``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import publishing
from tests.cli.conftest import Harness
from tests.publishing.conftest import SHIPPED

PAPER = ("--paper-title", "Example", "--paper-url", "https://example.org", "--authors", "Ann Poe", "--venue", "2026")


@pytest.fixture(scope="module")
def result() -> str:
    if not SHIPPED.is_file():
        pytest.skip("the leaderboards are not part of this copy of the sources")
    return str(SHIPPED)


def test_submit(harness: Harness, folder: Path, result: str) -> None:
    harness("submit", result, *PAPER).refused("cannot be submitted", "there is a leaderboard", "--draft")
    assert not (folder / "submission").exists()
    outcome = harness("submit", result, *PAPER, "--draft", "--to", "out", "--json")
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    assert (told["name"], told["draft"]) == ("Poe2026Example_DRAFT", True)
    assert [check["rule"] for check in told["checks"] if check["outcome"] == "failed"] == [
        "there is a leaderboard of the data set and norm"
    ]
    assert sorted(told["files"]) == sorted(
        path.relative_to(folder / "out").as_posix() for path in (folder / "out").rglob("*") if path.is_file()
    )
    harness("submit", "missing.json", *PAPER).refused("missing.json")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("submit", *PAPER, "--external", "--model-id", "../../../x", "--draft"), "external evaluation is called"),
        (("submit", *PAPER, "--model-id", "Poe２０２４Example", "--draft"), "an entry is called"),
        (("submit", *PAPER, "--model-id", f"Poe2024{'x' * 300}", "--draft"), "at most 100 characters"),
        (("submit", *PAPER, "--paper-url", "http://[::1"), "the paper's address"),
        (("submit", *PAPER, "--to", "full"), "not empty"),
        (("publish", "--to", "full"), "not empty"),
    ],
)
def test_what_is_wrong_is_told_before_the_verification(
    harness: Harness, folder: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], words: str
) -> None:
    monkeypatch.setattr(publishing, "gather", lambda *given, **others: pytest.fail("it was verified"))
    (folder / "full").mkdir()
    (folder / "full" / "mine").touch()
    harness(*command, "result.json").refused(words)
    assert [path.name for path in folder.rglob("*")] == ["full", "mine"]


def test_publish(harness: Harness, folder: Path, result: str) -> None:
    pytest.importorskip("huggingface_hub", minversion="1.4")
    outcome = harness("publish", result, "--to", "out", "--hub-dataset", "poe-lab/digits")
    assert outcome.code == 0, outcome.err
    assert "not uploaded" in outcome.out
    assert (folder / "out" / ".eval_results" / "robust-harness.yaml").is_file()
    harness("publish", result, "--to", "out").refused("not empty")
