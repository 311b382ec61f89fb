"""A LaTeX table with booktabs: accuracies in percent, which rows cannot be told apart, and reasons to doubt as notes.

The document needs ``\\usepackage{booktabs}``. Where a board holds several sets of images, a rule separates them.
"""

from __future__ import annotations

from string import ascii_lowercase

from harness.audit.flags import Flag
from harness.results.formats._base import Accuracy, Board, Format, Row
from harness.results.formats._tex import escaped
from harness.results.measures import ranking
from harness.util.text import counted, printable

__all__ = ["latex"]

_LONGEST = 10_000


def _render(board: Board) -> str:
    measures, best = ranking(board.measures), ["Best known"] if board.shows_best_known else []
    notes = _notes(board)
    head = ["Rank", "Model", "Regime", "Clean", *(escaped(measure.label) for measure in measures), *best, "Tied with"]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{_caption(board, doubts=bool(notes))}}}",
        f"  \\begin{{tabular}}{{rll{'r' * (1 + len(measures) + len(best))}l}}",
        r"    \toprule",
        f"    {' & '.join(head)} \\\\",
        r"    \midrule",
        *_body(board, [measure.name for measure in measures], notes),
        r"    \bottomrule",
        r"  \end{tabular}",
        *(rf"  {{\footnotesize\raggedright {mark}: {escaped(words)}\par}}" for words, mark in notes.items()),
        r"\end{table}",
    ]
    lines += [f"% taken back: {printable(line.text, longest=_LONGEST)}" for line in board.withdrawn]
    lines += [f"% left out: {printable(reason, longest=_LONGEST)}" for _, reason in board.left_out]
    return "\n".join([*lines, ""])


def _notes(board: Board) -> dict[str, str]:
    """What there is to doubt on the board, each with the letters that mark it in the table: a to z, aa, ab, ...

    Figures that differ from row to row are left out, or a long table would have as many notes as rows.
    """
    words = dict.fromkeys(_words(flag) for row in board.rows for flag in row.flags if flag.doubtful)
    return {text: _letters(place) for place, text in enumerate(words)}


def _words(flag: Flag) -> str:
    """What kind of doubt a flag is, after the suite that it is of, if that is one of several."""
    suite = flag.figures.get("suite")
    if flag.meaning is None or not set(flag.figures) - {"suite"}:
        return flag.text
    return f"{suite}: {flag.meaning}" if suite else flag.meaning


def _letters(place: int) -> str:
    before, last = divmod(place, len(ascii_lowercase))
    return (_letters(before - 1) if before else "") + ascii_lowercase[last]


def _body(board: Board, measures: list[str], notes: dict[str, str]) -> list[str]:
    lines: list[str] = []
    before: Row | None = None
    for row in board.rows:
        if before and row.images != before.images:
            lines.append(r"    \midrule")
        elif before and not row.grouped_with(before):
            lines.append(r"    \addlinespace")
        cells = [
            str(row.rank),
            escaped(row.checkpoint) + _marks(row, notes),
            escaped(row.regime or ""),
            _percent(row.clean),
            *(_percent(row.robust.get(name)) for name in measures),
            *([_percent(row.best_known)] if board.shows_best_known else []),
            row.tied_in_words.replace(" to ", "--"),
        ]
        lines.append(f"    {' & '.join(cells)} \\\\")
        before = row
    return lines


def _marks(row: Row, notes: dict[str, str]) -> str:
    marks = ",".join(dict.fromkeys(notes[_words(flag)] for flag in row.flags if flag.doubtful))
    return rf"\textsuperscript{{{marks}}}" if marks else ""


def _caption(board: Board, *, doubts: bool) -> str:
    images = "fewer than all" if board.partial else "all"
    where = f"{board.dataset} {board.split}, {board.norm} {board.eps}: {images} {counted(board.size, 'image')}"
    return escaped(
        f"{where}. Accuracies in percent with 95 % Wilson intervals, ranked by {board.ranked_by}; equal figures share "
        f"a rank. {board.told_apart_by} The last column gives the ranks that a row cannot be told apart from."
        f"{' Letters: reasons to doubt a row, below the table.' if doubts else ''}"
    )


def _percent(accuracy: Accuracy | None) -> str:
    if accuracy is None:
        return "--"
    low, high = 100 * accuracy.low, 100 * accuracy.high
    return f"{100 * accuracy.value:.1f} {{\\scriptsize({low:.1f}--{high:.1f})}}"


latex = Format(suffix=".tex", render=_render)
