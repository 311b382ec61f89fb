"""Every registered norm keeps its contracts."""

from __future__ import annotations

import pytest

from harness.contracts import NORM_CONTRACTS
from harness.threat import norms


@pytest.mark.parametrize("norm", norms.names())
@pytest.mark.parametrize("contract", NORM_CONTRACTS)
def test_contract(contract: str, norm: str) -> None:
    NORM_CONTRACTS[contract](norms.get(norm))
