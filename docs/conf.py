"""How the documentation is built: `make docs`."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

import harness

project = "robust-harness"
author = "robust-harness contributors"
copyright = author
release = harness.__version__

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
smartquotes = False  # "--" of an option must stay two characters
exclude_patterns = ["_build", "examples"]
html_theme = "furo"
html_title = f"robust-harness {release}"
html_show_sphinx = False


class Members(Directive):
    """A table of a family's members, so that a new file documents itself: name and first line."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The table."""
        family = self.arguments[0]
        return [table(regimes() if family == "regimes" else first_lines(family))]


def first_lines(family: str) -> list[dict[str, str]]:
    """What each file of a family says of itself."""
    rows = []
    for path in sorted((Path(harness.__file__).parent / family).glob("[!_]*.py")):
        about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        rows.append({"name": path.stem.replace("_", "-"), "what it is": about.partition("\n")[0]})
    return rows


def regimes() -> list[dict[str, str]]:
    """The fields of every regime that differ somewhere."""
    from harness.regimes import get, names

    rows = [get(name).row() for name in names()]
    kept = [field for field in rows[0] if len({row[field] for row in rows}) > 1]
    return [{field.replace("_", " "): row[field] for field in kept} for row in rows]


def table(rows: list[dict[str, str]]) -> nodes.table:
    """Rows of equal keys as a table; the first column is code."""

    def line(cells: list[str]) -> nodes.row:
        first, *others = cells
        entries = [nodes.literal(text=first), *(nodes.Text(cell) for cell in others)]
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in entries))

    header = list(rows[0])
    group = nodes.tgroup(cols=len(header))
    group += [nodes.colspec(colwidth=1) for _ in header]
    group += nodes.thead("", line(header))
    group += nodes.tbody("", *(line(list(row.values())) for row in rows))
    return nodes.table("", group)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.add_directive("members", Members)
