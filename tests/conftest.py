"""What holds for all tests: nothing depends on how fast this machine is, or on what its user trusts."""

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


@pytest.fixture
def unaudited(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """For whole modules whose tests are not about audits; one of them that needs them is marked ``audited``."""
    from tests.support import leave_out_audits

    if request.node.get_closest_marker("audited") is None:
        leave_out_audits(monkeypatch)


@pytest.fixture(autouse=True)
def own_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of settings for each test, in which no code is trusted yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("settings")))
