"""The parts of a leaderboard's page: markup that escapes, table, evidence, plots, and the script and style files."""

from __future__ import annotations

from harness.results.formats._page.document import document

__all__ = ["document"]
