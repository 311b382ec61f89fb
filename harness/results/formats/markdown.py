"""A Markdown table with accuracies in percent."""

from __future__ import annotations

from harness.results.formats._base import BEST_KNOWN_MEANS, Accuracy, Board, Format, Row
from harness.util.text import counted, markdown_text

__all__ = ["markdown"]

_LEFT = ("checkpoint", "regime", "parent", "architecture", "tied with", "flags")


def _render(board: Board) -> str:
    where = f"{markdown_text(board.dataset)}, {markdown_text(board.norm)} {markdown_text(board.eps)}"
    split = markdown_text(board.split)
    title = f"# {'Partial runs' if board.partial else 'Leaderboard'}: {where}"
    if board.partial:
        about = (
            f"**These are partial runs**: fewer than the {counted(board.size, 'sample')} of the {split} "
            "split were evaluated. They are no part of the leaderboard, and ranks restart for every set of "
            "samples."
        )
    else:
        about = f"All {counted(board.size, 'sample')} of the {split} split."
    rule = (
        f"Accuracies in percent, with 95 % Wilson intervals, ranked by {markdown_text(board.ranked_by)}; equal figures "
        "share a rank. Of several evaluations of the same weights by the same suite the one with the lowest robust "
        f"accuracy is shown. {markdown_text(board.told_apart_by)}"
    )
    if board.shows_best_known:
        rule += f" {BEST_KNOWN_MEANS}"
    head = ["rank", "group", "checkpoint", "regime", "parent", "architecture", "parameters", "trained", "clean"]
    best = ["best known"] if board.shows_best_known else []
    header = [*head, *(markdown_text(measure.label) for measure in board.measures), *best, "n", "tied with", "flags"]
    lines = [
        f"| {' | '.join(header)} |",
        f"|{'|'.join('---' if name in _LEFT else '---:' for name in header)}|",
        *(f"| {' | '.join(_cells(board, row))} |" for row in board.rows),
    ]
    if board.withdrawn:
        lines += ["", "Taken back:", "", *(f"- {markdown_text(line.text)}" for line in board.withdrawn)]
    if board.left_out:
        lines += ["", "Left out:", "", *(f"- {markdown_text(reason)}" for _, reason in board.left_out)]
    return "\n".join([title, "", about, rule, "", *lines, ""])


def _cells(board: Board, row: Row) -> tuple[str, ...]:
    share = "" if row.trained_share is None else f"{100 * row.trained_share:.2f} %"
    return (
        str(row.rank),
        str(row.group),
        markdown_text(row.checkpoint),
        markdown_text(row.regime or ""),
        markdown_text(row.parent or ""),
        markdown_text(row.architecture),
        f"{row.parameters:,}",
        share,
        _percent(row.clean),
        *(_percent(row.robust.get(measure.name)) for measure in board.measures),
        *([_percent(row.best_known)] if board.shows_best_known else []),
        f"{row.n:,}",
        row.tied_in_words,
        markdown_text("; ".join(map(str, row.flags))),
    )


def _percent(accuracy: Accuracy | None) -> str:
    if accuracy is None:
        return ""
    return f"{100 * accuracy.value:.1f} ({100 * accuracy.low:.1f}–{100 * accuracy.high:.1f})"


markdown = Format(suffix=".md", render=_render)
