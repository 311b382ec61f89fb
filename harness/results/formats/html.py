"""A page that people open: sorts, filters, shows the evidence behind each row, and asks for nothing from elsewhere."""

from __future__ import annotations

from harness.results.formats._base import Format
from harness.results.formats._page import document

__all__ = ["html"]

html = Format(suffix=".html", render=document)
