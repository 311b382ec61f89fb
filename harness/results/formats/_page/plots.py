"""The plots of a leaderboard's page. Every mark carries the number of its row, so that the script can link the two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from harness.results.formats._base import Board, Row
from harness.results.formats._page.axes import HEIGHT, WIDTH, Axis, frame, percent_axis
from harness.results.formats._page.markup import Markup, element
from harness.results.measures import ranking
from harness.util.text import counted

__all__ = ["plots"]

_COLOURS = 9
_FEW = 12
"""Rows up to which marks are labelled and lines are drawn in full."""


def plots(board: Board) -> list[Markup]:
    """Every plot that the board has figures for, as figures."""
    colours = _colours(board)
    made = (_clean_and_robust(board, colours), _survivors(board, colours), _by_eps(board, colours))
    return [plot for plot in made if plot]


def _colours(board: Board) -> dict[str, int]:
    """A colour for each of the most frequent regimes; the others share the last."""
    counts = Counter(row.regime or "no regime" for row in board.rows)
    order = sorted(counts, key=lambda regime: (-counts[regime], regime))
    return {regime: min(place, _COLOURS) for place, regime in enumerate(order)}


def _colour(row: Row, colours: dict[str, int]) -> str:
    return f"c{colours[row.regime or 'no regime']}"


def _figure(title: str, about: str, content: Iterable[Markup], colours: dict[str, int]) -> Markup:
    picture = element(
        "svg", *content, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{title}. {about}", class_="plot"
    )
    named = [(regime, colour) for regime, colour in colours.items() if colour < _COLOURS]
    if len(named) < len(colours):
        named.append((f"{len(colours) - len(named)} other regimes", _COLOURS))
    key = [element("li", element("i", class_=f"c{colour}", aria_hidden="true"), regime) for regime, colour in named]
    legend = element("ul", *key, class_="legend")
    readout = element("p", "\u00a0", class_="readout")
    return element("figure", element("figcaption", title), picture, readout, legend)


def _clean_and_robust(board: Board, colours: dict[str, int]) -> Markup | None:
    order = ranking(board.measures)
    if not order:
        return None
    first = order[0]
    points = [
        (place, row, row.robust[first.name].value) for place, row in enumerate(board.rows) if first.name in row.robust
    ]
    across = percent_axis("clean accuracy, %", [row.clean.value for _, row, _ in points])
    up = percent_axis(f"robust accuracy ({first.label}), %", [robust for _, _, robust in points], vertical=True)
    at = {place: (across.at(row.clean.value), up.at(robust)) for place, row, robust in points}
    names = {row.checkpoint: place for place, row, _ in points}
    arrows = [
        _arrow(at[names[row.parent]], at[place], place)
        for place, row, _ in points
        if row.parent in names and at[names[row.parent]] != at[place]
    ]
    dots = [
        element(
            "circle",
            cx=at[place][0],
            cy=at[place][1],
            r=5 if len(points) <= _FEW else 3,
            class_=_colour(row, colours),
            data_row=place,
        )
        for place, row, robust in points
    ]
    labels = _labels([(row.checkpoint, *at[place]) for place, row, _ in points]) if len(points) <= _FEW else []
    about = f"One mark for each of {counted(len(points), 'model')}; arrows lead from a model to those trained from it."
    content = [
        frame(across, up),
        element("g", *arrows, class_="arrows" if len(points) <= _FEW else "arrows faint"),
        *labels,
        *dots,
    ]
    return _figure(f"Clean and robust accuracy ({first.label})", about, content, colours)


def _arrow(begin: tuple[float, float], end: tuple[float, float], place: int) -> Markup:
    (x0, y0), (x1, y1) = begin, end
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
    along, across = ((x1 - x0) / length, (y1 - y0) / length)
    # the tip stops before the mark
    tip_x, tip_y = x1 - 7 * along, y1 - 7 * across
    sides = [(tip_x - 6 * along + side * 3 * across, tip_y - 6 * across - side * 3 * along) for side in (1, -1)]
    head = "L".join(f"{x:.1f} {y:.1f}" for x, y in (sides[0], (tip_x, tip_y), sides[1]))
    return element("path", d=f"M{x0:g} {y0:g}L{tip_x:.1f} {tip_y:.1f}M{head}", data_row=place)


def _labels(marks: list[tuple[str, float, float]]) -> Iterator[Markup]:
    """Names beside marks, where there is room for them."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for _, x, y in marks]
    for name, x, y in marks:
        short = name if len(name) <= 24 else f"{name[:23]}…"
        width = 6.2 * len(short)
        for anchor, left, base in (
            ("start", x + 9, y + 4),
            ("end", x - 9 - width, y + 4),
            ("middle", x - width / 2, y - 10),
            ("middle", x - width / 2, y + 18),
        ):
            box = (left, base - 10, left + width, base + 3)
            inside = left >= 46 and left + width <= WIDTH and base >= 10 and base <= HEIGHT - 44
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                at = {"start": left, "end": left + width, "middle": left + width / 2}[anchor]
                yield element("text", short, x=round(at, 1), y=round(base, 1), text_anchor=anchor, class_="label")
                break


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _survivors(board: Board, colours: dict[str, int]) -> Markup | None:
    """Samples that survive after each step, of the rows whose result has the steps that most have."""
    steps = {
        place: tuple(step.name for step in row.deciding.steps) for place, row in enumerate(board.rows) if row.ranked_by
    }
    if not steps:
        return None
    usual = max(Counter(steps.values()).items(), key=lambda item: (item[1], item[0]))[0]
    lines = []
    for place, row in enumerate(board.rows):
        if steps.get(place) == usual:
            result = row.deciding
            lines.append((place, row, [result.clean_acc, *(step.after / result.n for step in result.steps)]))
    ticks = tuple((float(i), name if len(name) < 14 else f"{name[:12]}…") for i, name in enumerate(("clean", *usual)))
    across = Axis("after step", -0.3, len(usual) + 0.3, ticks if len(ticks) <= 6 else _thinned(ticks))
    up = percent_axis(
        "samples that survive, %", [0.0, *(share for *_, shares in lines for share in shares)], vertical=True
    )
    about = f"One line for each of {counted(len(lines), 'model')}."
    courses = [
        (place, row, [(across.at(step), up.at(share)) for step, share in enumerate(shares)])
        for place, row, shares in lines
    ]
    return _figure("Survivors, step by step", about, [frame(across, up), _courses(courses, colours)], colours)


def _thinned(ticks: tuple[tuple[float, str], ...]) -> tuple[tuple[float, str], ...]:
    every = -(-len(ticks) // 6)
    return tuple(tick for place, tick in enumerate(ticks) if place % every == 0)


def _by_eps(board: Board, colours: dict[str, int]) -> Markup | None:
    """Robust accuracy at every radius that a row's model was evaluated at by the suite that ranks it."""
    lines = [
        (place, row, [(0.0, row.clean.value), *((p.radius, p.accuracy.value) for p in row.curve)])
        for place, row in enumerate(board.rows)
        if len(row.curve) > 1
    ]
    if not lines:
        return None
    radii = {point.radius: point.eps for _, row, _ in lines for point in row.curve}
    ticks = ((0.0, "0"), *sorted(radii.items()))
    across = Axis(f"eps ({board.norm})", 0.0, 1.03 * max(radii), _thinned(ticks) if len(ticks) > 7 else ticks)
    up = percent_axis(
        "robust accuracy, %", [0.0, *(share for *_, points in lines for _, share in points)], vertical=True
    )
    about = f"One line for each of {counted(len(lines), 'model')}, at several radii."
    courses = [(place, row, [(across.at(x), up.at(y)) for x, y in points]) for place, row, points in lines]
    return _figure("Robust accuracy against eps", about, [frame(across, up), _courses(courses, colours)], colours)


def _courses(courses: list[tuple[int, Row, list[tuple[float, float]]]], colours: dict[str, int]) -> Markup:
    """A line for each row, faint where there are many."""
    lines = [
        element(
            "path",
            class_=_colour(row, colours),
            d="M" + "L".join(f"{x:g} {y:g}" for x, y in points),
            data_row=place,
        )
        for place, row, points in courses
    ]
    return element("g", *lines, class_="courses" if len(lines) <= _FEW else "courses faint")
