"""``harness evaluate --check``: a check of one's own adds its flags, and what is stored is not attacked again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Harness

CHECKS = """
from harness.audit.flags import define

SEEN = define("seen-by-this-test", "note", "the check was made", "{samples} samples of {threat} were seen")


def seen(subject):
    assert not subject.logits.requires_grad
    yield SEEN(samples=len(subject.x), threat=str(subject.threat))


def silent(subject):
    return []


def failing(subject):
    raise ValueError("out of\\nideas")


def wordy(subject):
    return ["a flag in free words"]
"""

EVALUATE = ("evaluate", "--checkpoint", "tiny", "--suite", "clean", "--limit", "40", "--workers", "1", "--json")


@pytest.fixture(autouse=True)
def file(folder: Path, tiny: Path) -> None:
    (folder / "mine.py").write_text(CHECKS)


def test_flags_are_added_without_another_attack(harness: Harness, folder: Path) -> None:
    first, second, third = (
        json.loads(harness(*EVALUATE, *options).out)
        for options in ((), ("--check", "mine.py:seen", "--check", "mine.py:silent"), ("--check", "mine.py:seen"))
    )
    assert first["ran"]
    assert second["ran"] is third["ran"] is False
    # an untrained network guesses, which is a flag of its own
    guessing = [flag["text"] for flag in first["flags"]]
    new = [flag["text"] for flag in second["flags"] if flag["text"] not in guessing]
    assert new == ["32 samples of Linf:0.15 were seen"]
    assert second["evaluation_id"] == first["evaluation_id"]
    # the record that has the flag is found from then on
    assert second["result"] == third["result"] != first["result"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("failing", "the check mine.py:failing fails: ValueError: out of ideas"),
        ("wordy", "the check mine.py:wordy must give flags"),
        ("wordly", "did you mean 'wordy'?"),
        ("SEEN_", "unknown check in mine.py"),
    ],
)
def test_a_check_that_goes_wrong_ends_the_evaluation_before_the_attack(
    harness: Harness, folder: Path, name: str, text: str
) -> None:
    harness(*EVALUATE, "--check", f"mine.py:{name}").refused(text)
    assert not list(folder.rglob("leaderboards/results/*.json"))
