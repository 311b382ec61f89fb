"""The page of promises names tests that are there."""

from __future__ import annotations

from benchmarks.trust import promises
from tests.house._tree import ROOT


def test_every_promise_names_a_test_that_is_there() -> None:
    listed = promises()
    rows = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8").partition("| promise | held by |")[2]
    assert len(listed) == rows.partition("\n## ")[0].count("\n| ")
    assert all(files and all((ROOT / file).is_file() for file in files) for _, files in listed)
