"""A Slurm for the tests of this folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import slurm


@pytest.fixture(scope="session")
def cluster() -> Iterator[dict[str, str]]:
    """The variables with which Slurm's commands find it; its partition is ``short``."""
    reason = slurm.lacking()
    if reason is not None:
        pytest.skip(reason)
    # a socket's path must be short, and pytest's folders are not
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, slurm.running(Path(folder)) as variables:
        yield variables
