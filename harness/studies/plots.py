"""Pictures of a study: clean against robust, robust accuracy against eps, and how training went.

Equal measurements give equal bytes: no dates in the files, and a fixed salt for the names inside an SVG.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.studies.measurements import Measurements
from harness.studies.tables import Spread, clean, robust

__all__ = ["FORMATS", "pictures"]

Format = Literal["png", "svg"]
FORMATS: tuple[Format, ...] = ("png", "svg")

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "harness",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "figure.dpi": 100,
    "savefig.dpi": 160,
}
# Okabe & Ito's colours, which most eyes can tell apart, then those of Tol's "muted" that look like none of them
_COLORS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#882255", "#999933", "#332288",
    "#661100", "#44aa99", "#aa4499", "#7f7f7f",
)  # fmt: skip
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", "--", "-.", ":")

# points in percent that an axis shows at least: differences of less are noise, and are not to look large
_NARROWEST = 8.0

Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in pixels."""


def pictures(measurements: Measurements) -> Iterator[tuple[str, Format, bytes]]:
    """Name, format and content of every picture that there is something to show in."""
    with mpl.rc_context(_STYLE):
        for name, figure in (
            ("clean-robust", _clean_robust(measurements)),
            ("eps", _curves(measurements)),
            ("training", _training(measurements)),
        ):
            if figure is not None:
                for kind in FORMATS:
                    yield name, kind, _bytes(figure, kind)


def _bytes(figure: Figure, kind: Format) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, metadata=metadata, bbox_inches="tight")
    return buffer.getvalue()


def _color(i: int) -> str:
    """A colour of its own for every number."""
    if i < len(_COLORS):
        return _COLORS[i]
    # the golden ratio keeps hues apart however many there are
    red, green, blue = colorsys.hsv_to_rgb((i - len(_COLORS)) * 0.618034 % 1, 0.9, 0.75)
    return to_hex((red, green, blue))


def _looks(measurements: Measurements) -> dict[str, dict[str, Any]]:
    """Colour, marker and line of every label, the same in all pictures."""
    return {
        member.label: {
            "color": _color(i),
            "marker": _MARKERS[(i + i // len(_COLORS)) % len(_MARKERS)],
            "linestyle": _LINES[(i // len(_COLORS) + i) % len(_LINES)],
        }
        for i, member in enumerate(measurements.plan.members)
    }


def _clean_robust(measurements: Measurements) -> Figure | None:
    measure = measurements.plan.primary
    looks = _looks(measurements)
    points = {}
    for member in measurements.plan.members:
        across, up = clean(measurements, member.label, measure), robust(measurements, member.label, measure)
        if across:
            points[member.label] = (across, up)
    if not points:
        return None
    figure = _figure(6.4, 4.8)
    axes = figure.add_subplot()
    for label, (across, up) in points.items():
        look = looks[label]
        _bars(axes, across.mean, up, look["color"])
        _bars(axes, up.mean, across, look["color"], sideways=True)
        axes.plot(across.mean, up.mean, look["marker"], color=look["color"], markersize=6)
    chance = 100 / len(measurements.plan.test_set.classes)
    _room(axes.set_xlim, [_reach(across) for across, _ in points.values()])
    bottom, top = _room(axes.set_ylim, [_reach(up) for _, up in points.values()])
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        axis.set_ticks([tick for tick in axis.get_ticklocs() if max(0, low) <= tick <= min(100, high)])
    axes.set_xlabel("clean accuracy (%)")
    axes.set_ylabel(f"robust accuracy (%), {measure.suite}, {measure.threat}")
    axes.set_title(measurements.plan.study.title or measurements.plan.study.name, loc="left", fontsize=10)
    # far below all points it would only press them together
    word = _chance_line(axes, chance) if bottom <= chance <= top else None
    _name_points(figure, axes, points, looks, word)
    return figure


def _chance_line(axes: Any, chance: float, *, right: bool = False) -> Any:
    """A dashed line at the accuracy of guessing; returns its word, at the left end or at the right one."""
    axes.axhline(chance, color="#999999", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    return axes.annotate(
        "chance", (1.0 if right else 0.0, chance), xycoords=("axes fraction", "data"), xytext=(-2 if right else 3, 2),
        textcoords="offset points", color="#777777", fontsize=7.5, ha="right" if right else "left",
    )  # fmt: skip


def _bars(axes: Any, at: float, spread: Spread, color: str, *, sideways: bool = False) -> None:
    """What other images would change as a broad pale bar, what other seeds do as a thin one with ends."""
    low, high = spread.interval
    lines = axes.hlines if sideways else axes.vlines
    lines(at, low, high, color=color, linewidth=4, alpha=0.25)
    if spread.deviation is not None:
        place = (spread.mean, at) if sideways else (at, spread.mean)
        error = {"xerr" if sideways else "yerr": spread.deviation}
        axes.errorbar(*place, **error, fmt="none", color=color, capsize=2, elinewidth=1)


def _reach(spread: Spread) -> tuple[float, float]:
    """Both ends of the longer bar."""
    low, high = spread.interval
    deviation = spread.deviation or 0.0
    return min(low, spread.mean - deviation), max(high, spread.mean + deviation)


def _room(set_limits: Any, bars: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Limits around the bars with room for the names, little of it beyond what a percentage can be."""
    low, high = min(bar[0] for bar in bars), max(bar[1] for bar in bars)
    margin = max(0.12 * (high - low), (_NARROWEST - (high - low)) / 2)
    beyond = 0.06 * max(high - low, _NARROWEST)
    # a deviation may reach below 0 or above 100, and is drawn whole
    bottom = max(low - margin, min(0.0, low) - beyond)
    top = min(high + margin, max(100.0, high) + beyond)
    lacking = max(0.0, _NARROWEST - (top - bottom))
    bottom, top = (bottom, top + lacking) if bottom > low - margin else (bottom - lacking, top)
    set_limits(bottom, top)
    return bottom, top


def _name_points(
    figure: Figure,
    axes: Any,
    points: dict[str, tuple[Spread, Spread]],
    looks: dict[str, dict[str, Any]],
    chance: Any,
) -> None:
    """Each name where it covers neither a point nor another name nor the edge, as near its point as can be."""
    canvas: Any = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    figure.draw_without_rendering()
    frame = axes.get_window_extent(renderer)
    scale = figure.dpi / 72
    places = {label: (across.mean, up.mean) for label, (across, up) in points.items()}
    spots = {label: axes.transData.transform(place) for label, place in places.items()}
    taken: list[Box] = [] if chance is None else [chance.get_window_extent(renderer).extents]
    for label, (across, up) in points.items():
        spot = spots[label]
        taken.append((spot[0] - 5 * scale, spot[1] - 5 * scale, spot[0] + 5 * scale, spot[1] + 5 * scale))
        (left, right), (bottom, top) = _reach(across), _reach(up)
        for corners in (((left, up.mean), (right, up.mean)), ((across.mean, bottom), (across.mean, top))):
            low, high = (axes.transData.transform(corner) for corner in corners)
            taken.append((low[0] - 2 * scale, low[1] - 2 * scale, high[0] + 2 * scale, high[1] + 2 * scale))
    directions = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)]
    # from the crowded to the lonely would need a search; from the right to the left serves points near 100 %
    for label in sorted(places, key=lambda name: (-places[name][0], places[name][1])):
        text = axes.annotate(label, places[label], fontsize=8, color=looks[label]["color"], annotation_clip=False)
        size = text.get_window_extent(renderer)
        best: tuple[float, Box, tuple[float, float]] | None = None
        for distance in (8, 14, 22, 32, 44):
            for right_by, up_by in directions:
                x = spots[label][0] + right_by * distance * scale - (size.width if right_by < 0 else 0)
                y = spots[label][1] + up_by * distance * scale - size.height * (1 - up_by) / 2
                x -= size.width / 2 if right_by == 0 else 0
                box = (x, y, x + size.width, y + size.height)
                cost = (
                    5 * sum(_overlap(box, other) for other in taken) + 400 * _outside(box, frame.bounds) + 8 * distance
                )
                if best is None or cost < best[0]:
                    best = (cost, box, (x, y))
        if best is not None:
            taken.append(best[1])
            text.remove()
            _place(axes, label, places[label], best[2], spots[label], scale, looks[label]["color"], best[1])


def _place(
    axes: Any,
    label: str,
    point: tuple[float, float],
    corner: tuple[float, float],
    spot: Any,
    scale: float,
    color: str,
    box: Box,
) -> None:
    offset = ((corner[0] - spot[0]) / scale, (corner[1] - spot[1]) / scale)
    near_x, near_y = np.clip(spot[0], box[0], box[2]), np.clip(spot[1], box[1], box[3])
    far = float(np.hypot(near_x - spot[0], near_y - spot[1])) > 13 * scale
    axes.annotate(
        label,
        point,
        xytext=offset,
        textcoords="offset points",
        fontsize=8,
        va="bottom",
        color=color,
        annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4} if far else None,
    )


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _outside(box: Box, bounds: Box) -> float:
    left, bottom, width, height = bounds
    return sum(max(0.0, d) for d in (left - box[0], bottom - box[1], box[2] - left - width, box[3] - bottom - height))


def _curves(measurements: Measurements) -> Figure | None:
    plan = measurements.plan
    if plan.study.curve is None:
        return None
    measures = sorted(
        (m for m in plan.measures if m.asked == plan.study.curve.suite and m.bn_stats == plan.primary.bn_stats),
        key=lambda m: m.threat.radius,
    )
    figure = _figure(6.4, 4.4)
    axes = figure.add_subplot()
    looks, chance = _looks(measurements), 100 / len(plan.test_set.classes)
    drawn: list[tuple[float, float]] = []
    for member in plan.members:
        found = [(m, robust(measurements, member.label, m)) for m in measures]
        found = [(m, spread) for m, spread in found if spread]
        if not found:
            continue
        start = clean(measurements, member.label, found[0][0])
        xs = [0.0, *(m.threat.radius for m, _ in found)]
        spreads = [start, *(spread for _, spread in found)]
        look = looks[member.label]
        axes.plot(xs, [s.mean for s in spreads], label=member.label, markersize=4, linewidth=1.3, **look)
        for at, spread in zip(xs, spreads, strict=True):
            _bars(axes, at, spread, look["color"])
        drawn += [_reach(spread) for spread in spreads]
    if not drawn:
        return None
    axes.set_xticks([0.0, *(m.threat.radius for m in measures)], ["0", *(m.threat.eps for m in measures)])
    bottom, top = _room(axes.set_ylim, drawn)
    if bottom <= chance <= top:
        _chance_line(axes, chance, right=True)
    axes.set_xlabel(f"eps ({measures[0].threat.norm})")
    axes.set_ylabel(f"robust accuracy (%), {measures[0].suite}")
    axes.set_title("Robust accuracy against eps", loc="left", fontsize=10)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8, handlelength=3)
    return figure


def _training(measurements: Measurements) -> Figure | None:
    panels = (
        ("loss", "training loss", 1.0),
        ("validation_clean_acc", "validation, clean (%)", 100.0),
        ("validation_robust_acc", "validation, PGD (%)", 100.0),
    )
    figure = _figure(10.5, 3.4)
    looks, shown = _looks(measurements), 0
    for position, (column, title, scale) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), position + 1)
        for member in measurements.plan.members:
            logs = [network.log for network in measurements.networks.get(member.label, {}).values()]
            curves = [[(row["epoch"], scale * row[column]) for row in log if column in row] for log in logs if log]
            curves = [curve for curve in curves if curve]
            if member.regime is None or not curves:
                continue
            look = {name: looks[member.label][name] for name in ("color", "linestyle")}
            for curve in curves:
                axes.plot(*zip(*curve, strict=True), color=look["color"], linewidth=0.5, alpha=0.35)
            epochs = sorted({epoch for curve in curves for epoch, _ in curve})
            means = [float(np.mean([v for curve in curves for e, v in curve if e == epoch])) for epoch in epochs]
            axes.plot(epochs, means, linewidth=1.5, label=member.label if not position else None, **look)
            shown += 1
        axes.set_title(title, loc="left", fontsize=9)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if scale == 100:
            axes.set_ylim(-3, 103)
    if not shown:
        return None
    figure.subplots_adjust(wspace=0.22)
    figure.legend(loc="center left", bbox_to_anchor=(0.91, 0.5), frameon=False, fontsize=8, handlelength=3)
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure
