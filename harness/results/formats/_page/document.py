"""A leaderboard's page: one file that asks for nothing else and runs nothing but its own script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from importlib.resources import files

from harness.results.formats._base import BEST_KNOWN_MEANS, Board, Row
from harness.results.formats._page.evidence import evidence
from harness.results.formats._page.markup import Child, Markup, element
from harness.results.formats._page.plots import plots
from harness.results.formats._page.table import SHOWN, columns, table
from harness.util.text import counted

__all__ = ["document"]

_NONE = "none"
_LONG = 20
"""Rows from which on the table scrolls by itself, under headings that stay."""

_FILTERS: tuple[tuple[str, str, Callable[[Row], tuple[str, ...]]], ...] = (
    ("regime", "Regime", lambda row: (row.regime or _NONE,)),
    ("architecture", "Architecture", lambda row: (row.architecture,)),
    ("parent", "Parent", lambda row: (row.parent or _NONE,)),
    ("flag", "Flag", lambda row: tuple(sorted({flag.code for flag in row.flags})) or (_NONE,)),
)


def document(board: Board) -> str:
    """The whole page; the same text for the same board."""
    script, style = _part("page.js"), _part("page.css")
    shown = columns(board)
    choices = {name: _choices(board, of) for name, _, of in _FILTERS}
    data = evidence(board, shown, {name: list(rows.values()) for name, rows in choices.items()})
    where = f"{board.dataset}, {board.norm} {board.eps}"
    title = f"{'Partial runs' if board.partial else 'Leaderboard'}: {where}"
    figures = plots(board)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(script, style)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        # an icon of its own, so that no browser asks a server for one
        element("link", rel="icon", href="data:,"),
        element("style", style),
    )
    main = element(
        "main",
        element("h1", title),
        *_about(board),
        element("section", element("h2", "Plots", class_="hidden"), element("div", *figures, class_="plots"))
        if figures
        else None,
        element("h2", "Models"),
        _form(choices),
        element("p", counted(len(board.rows), "model"), id="count", class_="count", role="status"),
        element(
            "div",
            table(board, shown),
            class_="scroll long" if len(board.rows) > _LONG else "scroll",
            tabindex=0,
            role="region",
            aria_label="Table of models",
        ),
        element(
            "p",
            element("button", f"Show {SHOWN} more", type="button"),
            element("button", "Show all", type="button"),
            id="more",
            hidden=True,
        ),
        *_listed("Taken back", "history", [line.text for line in board.withdrawn]),
        *_listed("Left out", "left-out", [reason for _, reason in board.left_out]),
    )
    body = element(
        "body", main, element("script", data, id="evidence", type="application/json"), element("script", script)
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _part(name: str) -> Markup:
    """A file beside this one, which the project wrote itself and which is therefore taken as it is."""
    return Markup(files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _policy(script: str, style: str) -> str:
    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; script-src 'sha256-{digest(script)}'; style-src 'sha256-{digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )


def _choices(board: Board, of: Callable[[Row], tuple[str, ...]]) -> dict[str, list[int]]:
    """The numbers of the rows that have each value of a filter, by value."""
    found: dict[str, list[int]] = {}
    for place, row in enumerate(board.rows):
        for value in of(row):
            found.setdefault(value, []).append(place)
    return dict(sorted(found.items()))


def _form(choices: dict[str, dict[str, list[int]]]) -> Markup:
    search = element("label", "Search", element("input", type="search", name="search", autocomplete="off"))
    selects = []
    for name, title, _ in _FILTERS:
        values = enumerate(choices[name].items())
        options = [element("option", f"{value} ({len(rows):,})", value=place) for place, (value, rows) in values]
        selects.append(
            element("label", title, element("select", element("option", "all", value=""), *options, name=name))
        )
    # without the script it would do nothing
    return element("form", search, *selects, element("button", "Reset", type="reset"), id="choose", hidden=True)


def _about(board: Board) -> list[Child]:
    if board.partial:
        size = (
            f"These are partial runs: fewer than the {counted(board.size, 'image')} of the {board.split} split were "
            "evaluated. They are no part of the leaderboard, and ranks restart for every set of images."
        )
    else:
        size = f"All {counted(board.size, 'image')} of the {board.split} split."
    said = [
        "Accuracies in percent. The line over a bar is the 95 % Wilson interval.",
        "Of several evaluations of the same weights by one suite the one with the lowest robust accuracy is shown.",
        *([BEST_KNOWN_MEANS] if board.shows_best_known else []),
        board.told_apart_by,
        "The small figures under a rank are the lowest and highest rank of the rows that it cannot be told apart from. "
        "A dark line separates groups while the table is sorted by rank.",
        "A flag is a reason to doubt a figure. Open a row for its evidence: hashes, steps of the attacks, the command "
        "that repeats it, and how to cite it.",
    ]
    return [
        element("p", size, class_="partial" if board.partial else "lead"),
        element(
            "p",
            f"{counted(len(board.rows), 'model')}, ranked by {board.ranked_by}; equal figures share a rank.",
            class_="lead",
        ),
        element(
            "details",
            element("summary", "How to read this page"),
            element("ul", *(element("li", line) for line in said)),
            class_="help",
        ),
    ]


def _listed(title: str, name: str, texts: list[str]) -> list[Child]:
    if not texts:
        return []
    lines = (element("li", text) for text in texts)
    return [element("section", element("h2", title), element("ul", *lines), id=name)]
