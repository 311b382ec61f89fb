"""Nothing in the tests depends on how fast this machine is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def fixed_choice() -> Iterator[None]:
    """The passes of an attack are made by the eager backend, in micro-batches of 24 rows, and not by the fastest."""
    from tests.support import fix_choice

    with pytest.MonkeyPatch.context() as monkeypatch:
        fix_choice(monkeypatch)
        yield
