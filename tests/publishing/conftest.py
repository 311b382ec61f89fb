"""The evidence of a shipped result, which takes seconds, once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.publishing import Evidence, gather
from tests.house._tree import ROOT

SHIPPED = ROOT / "leaderboards" / "results" / "at_full__autoattack__Linf-0.15__6e1ec14d8ada.json"


@pytest.fixture(scope="session")
def shipped() -> Path:
    """The result of ``at_full`` under AutoAttack."""
    if not SHIPPED.is_file():
        pytest.skip("the leaderboards are not part of this copy of the sources")
    return SHIPPED


@pytest.fixture(scope="session")
def evidence(shipped: Path) -> Evidence:
    return gather(shipped, checkpoint_dir=ROOT / "checkpoints")
