"""Numbers in words."""

from __future__ import annotations

import pytest

from harness.util.text import counted


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 models"), (1, "1 model"), (2, "2 models"), (1000, "1,000 models")]
)
def test_a_number_of_things(number: int, words: str) -> None:
    assert counted(number, "model") == words


def test_a_plural_of_its_own() -> None:
    assert [counted(number, "class", "classes") for number in (1, 10)] == ["1 class", "10 classes"]
