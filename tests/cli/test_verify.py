"""``harness verify`` and what ``harness evaluate`` keeps for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import evaluation
from harness.results import history
from harness.results._evidence import content_sha256
from tests.cli.conftest import Harness

QUICK = ("--suite", "fgsm", "--limit", "20", "--workers", "1", "--json")


def evaluated(harness: Harness, *options: str) -> Path:
    outcome = harness("evaluate", "--checkpoint", "natural", "--eps", "0.3", *QUICK, *options)
    assert outcome.code == 0, outcome.err
    return Path(json.loads(outcome.out)["result"])


def test_what_is_evaluated_can_be_verified(harness: Harness) -> None:
    path = evaluated(harness)
    outcome = harness("verify", str(path))
    assert (outcome.code, outcome.err) == (0, "")
    assert "WRONG" not in outcome.out
    assert "a robust accuracy of at most" in outcome.out
    both = json.loads(harness("verify", str(path), str(path), "--json").out)
    assert [one["holds"] for one in both] == [True, True]


def test_a_changed_file_ends_with_one(harness: Harness) -> None:
    path = evaluated(harness)
    examples = path.with_suffix(".safetensors")
    content = bytearray(examples.read_bytes())
    content[-1] ^= 1
    examples.write_bytes(content)
    outcome = harness("verify", str(path), "--json")
    assert outcome.code == 1
    told = json.loads(outcome.out)
    assert not told["holds"]
    assert [check["name"] for check in told["checks"] if check["holds"] is False] == ["examples"]
    assert "changed after they were written" in harness("verify", str(path)).out


def test_examples_can_be_left_out(harness: Harness) -> None:
    path = evaluated(harness, "--no-adversarial")
    assert not list(path.parent.glob("*.safetensors"))
    outcome = harness("verify", str(path))
    assert outcome.code == 1
    assert "--no-adversarial" in outcome.out
    assert "at most" not in outcome.out


def test_what_is_no_result(harness: Harness, folder: Path) -> None:
    (folder / "other.json").write_text("{}")
    for name in ("other.json", "missing.json"):
        outcome = harness("verify", name)
        assert outcome.code == 1
        assert name in outcome.out
    assert harness("verify").code == 2


def test_a_result_that_is_wrong_does_not_keep_the_next_from_being_verified(harness: Harness, folder: Path) -> None:
    path = evaluated(harness)
    content = json.loads(path.read_text())
    content["adversarial"]["file"] = ""
    bad = path.with_name("bad.json")
    bad.write_text(json.dumps(content | {"content_sha256": content_sha256(content)}))
    outcome = harness("verify", str(bad), str(path), "--json")
    assert (outcome.code, outcome.err) == (1, "")
    first, second = json.loads(outcome.out)
    assert [check["text"] for check in first["checks"] if check["holds"] is False] == [
        "the result names no file beside it, got ''"
    ]
    assert second["holds"]


def test_what_no_history_takes_is_said_before_any_work(
    harness: Harness, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "verify", lambda *args, **options: pytest.fail("it worked first"))
    harness("verify", "a.json", "--by", "x" * 201).refused("201 characters", "give a shorter one")
    (folder / history.FILE).write_text("{")
    harness("verify", "a.json", "--by", "me").refused("line 1 of the history", "remove this last line")
