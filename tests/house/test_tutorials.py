"""The tutorials run as they stand, block by block, in an empty folder."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli import run
from tests.house._tree import ROOT

TUTORIALS = sorted((ROOT / "docs").glob("tutorial-*.md"))


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_HOME", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_every_block_runs(page: Path, empty: Path) -> None:
    space: dict[str, object] = {}
    for language, block in re.findall(r"```(python|console)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        named = re.match(r"# (\S+\.py)\n", block)
        if named:
            Path(named[1]).write_text(block)
        elif language == "python":
            exec(compile(block, str(page), "exec"), space)
        else:
            for line in block.splitlines():
                assert run(shlex.split(line)[1:]) == 0, line


def test_there_is_one() -> None:
    assert TUTORIALS
