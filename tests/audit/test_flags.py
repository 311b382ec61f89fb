"""Flags: one definition a code, records that mean what they say."""

from __future__ import annotations

import ast

import pytest
from pydantic import ValidationError

from harness.audit import flags, kinds
from harness.audit.flags import Flag, define
from harness.errors import InvalidInput
from tests.house._tree import modules, parse

OWN = [kind for kind in flags.kinds() if kind in vars(kinds).values()]


def test_figures_that_the_wording_names_are_filled_in_and_others_are_appended() -> None:
    kind = define("test-wording", "warn", "a test", "{seen} of {of} images were seen")
    flag = kind(seen=3, of=9, largest_gap=0.5)
    assert flag.text == "3 of 9 images were seen (largest gap 0.5)"
    assert flag.figures == {"seen": 3, "of": 9, "largest_gap": 0.5}
    with pytest.raises(InvalidInput, match="'of' is missing"):
        kind(seen=3)


def test_of_a_step() -> None:
    flag = kinds.ZERO_GRADIENT(samples=3, of=10).of_step("apgd-ce")
    assert flag.text.startswith("apgd-ce: some samples")
    assert flag.figures == {"step": "apgd-ce", "samples": 3, "of": 10}
    assert (flag.code, flag.severity) == ("zero-gradient", "warn")


def test_notes_cast_no_doubt() -> None:
    found = {severity: define(f"test-{severity}", severity, "a test", "words")() for severity in ("note", "warn")}
    assert (found["note"].doubtful, found["warn"].doubtful) == (False, True)
    assert [found[severity].line for severity in ("note", "warn")] == [
        "note: words (flag test-note)",
        "warning: words (flag test-warn)",
    ]


def test_each_once_in_order() -> None:
    first, second = kinds.RANDOMISED(), kinds.PROBABILITIES()
    assert flags.unique([second, first, kinds.PROBABILITIES()]) == [second, first]


def test_a_code_has_one_meaning() -> None:
    kind = define("test-twice", "warn", "a test", "words")
    assert define("test-twice", "warn", "a test", "words") is kind
    with pytest.raises(InvalidInput, match="defined already"):
        define("test-twice", "note", "a test", "words")


@pytest.mark.parametrize(("code", "severity"), [("Bad Code", "warn"), ("", "warn"), ("a--b", "warn"), ("ok", "bad")])
def test_what_is_no_kind(code: str, severity: str) -> None:
    with pytest.raises(InvalidInput, match="flag"):
        define(code, severity, "a test", "words")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"code": "With Blanks"},
        {"severity": "bad"},
        {"text": ""},
        {"text": 3},
        {"figures": {"samples": True}},
        {"figures": {"samples": float("nan")}},
        {"figures": {"samples": [1]}},
        {"figures": {"name": "x" * 201}},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_record_is_strict(change: dict[str, object]) -> None:
    good: dict[str, object] = {"code": "zero-gradient", "severity": "warn", "text": "words", "figures": {"of": 1}}
    assert Flag.model_validate(good).figures == {"of": 1}
    with pytest.raises(ValidationError):
        Flag.model_validate(good | change)


def test_what_is_too_long_is_cut() -> None:
    flag = kinds.LINEAGE_UNVERIFIED(regime="bn-ft", reason="because " * 1000)
    assert (len(flag.text), len(str(flag.figures["reason"]))) == (2000, 200)


def test_every_kind_of_the_package_is_raised_somewhere() -> None:
    """A code that nothing raises would be listed for nothing."""
    used = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for name, path in modules().items()
        if name != "harness.audit.kinds"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Attribute | ast.Name)
    }
    assert sorted(set(kinds.__all__) - used) == []
    assert len(OWN) == sum(isinstance(value, flags.FlagKind) for value in vars(kinds).values())


def test_no_module_of_the_package_defines_kinds_elsewhere() -> None:
    """The generated table lists what `harness.audit.kinds` holds."""
    calls = {
        name: ast.unparse(node.func).split(".")[-1]
        for name, path in modules().items()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("define", "FlagKind")
    }
    assert calls == {"harness.audit.kinds": "define", "harness.audit.flags": "FlagKind"}
