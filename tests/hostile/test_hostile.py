"""Each hostile file is refused in one printable sentence, or ignored where it is only a note; none runs code.

Reading one takes less than 1 GB of address space and 5 s of processor time.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.errors import HarnessError
from tests.hostile import data, manifests, results, states, studies, weights
from tests.hostile.case import Case
from tests.hostile.limits import bounded

CASES = [*weights.cases(), *manifests.cases(), *data.cases(), *results.cases(), *states.cases(), *studies.cases()]
LEAST = 120


def test_there_are_many_of_every_kind() -> None:
    names = [str(case) for case in CASES]
    assert [name for name in names if names.count(name) > 1] == []
    assert len(CASES) >= LEAST


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_hostile_file(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / case.kind.file
    path.parent.mkdir(parents=True, exist_ok=True)
    case.kind.prepare(path)
    case.write(path)
    message = "ignored"
    with bounded():
        try:
            taken = case.kind.read(path)
            assert case.message is None, "the file was taken"
            assert not taken, "something of the file was taken"
        except HarnessError as error:
            message = str(error)
    assert re.search(case.message or "^ignored$", message), message
    assert message.isprintable(), "a terminal would act on it"
    assert len(message) < 2000
    assert not (tmp_path / "sprung").exists()
