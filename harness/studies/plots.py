"""Pictures of a study: clean against robust, robust accuracy against eps, and how training went.

Equal measurements give equal bytes: no dates in the files, and a fixed salt for the names inside an SVG.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.studies.measurements import Measurements
from harness.studies.tables import clean, robust

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
# Okabe & Ito's colours, which most eyes can tell apart, and grey
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", "--", "-.", ":")

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


def _looks(measurements: Measurements) -> dict[str, dict[str, Any]]:
    """Colour, marker and line of every label, the same in all pictures."""
    return {
        member.label: {
            "color": _COLORS[i % len(_COLORS)],
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
            points[member.label] = (across.mean, up.mean, across.deviation, up.deviation)
    if not points:
        return None
    figure = _figure(6.4, 4.8)
    axes = figure.add_subplot()
    for label, (x, y, dx, dy) in points.items():
        look = looks[label]
        axes.errorbar(
            x, y, xerr=dx, yerr=dy, fmt=look["marker"], color=look["color"], markersize=6, capsize=2, elinewidth=1
        )
    chance = 100 / len(measurements.plan.test_set.classes)
    _room(axes.set_xlim, [(p[0], p[2]) for p in points.values()])
    _room(axes.set_ylim, [*((p[1], p[3]) for p in points.values()), (chance, None)])
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        axis.set_ticks([tick for tick in axis.get_ticklocs() if max(0, low) <= tick <= min(100, high)])
    axes.axhline(chance, color="#999999", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    axes.set_xlabel("clean accuracy (%)")
    axes.set_ylabel(f"robust accuracy (%), {measure.suite}, {measure.threat}")
    axes.set_title(measurements.plan.study.title or measurements.plan.study.name, loc="left", fontsize=10)
    word = axes.annotate(
        "chance", (0.0, chance), xycoords=("axes fraction", "data"), xytext=(3, 2), textcoords="offset points",
        color="#777777", fontsize=7.5,
    )  # fmt: skip
    _name_points(figure, axes, points, looks, word)
    return figure


def _room(set_limits: Any, values: Sequence[tuple[float, float | None]]) -> None:
    """Limits around the bars with room for the names, never far beyond what a percentage can be."""
    low = min(value - (spread or 0.0) for value, spread in values)
    high = max(value + (spread or 0.0) for value, spread in values)
    margin = max(4.0, 0.1 * (high - low), (20.0 - (high - low)) / 2)
    set_limits(max(-7.0, low - margin), min(104.0, high + margin))


def _name_points(
    figure: Figure,
    axes: Any,
    points: dict[str, tuple[float, float, float | None, float | None]],
    looks: dict[str, dict[str, Any]],
    chance: Any,
) -> None:
    """Each name where it covers neither a point nor another name nor the edge, as near its point as can be."""
    canvas: Any = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    figure.draw_without_rendering()
    frame = axes.get_window_extent(renderer)
    scale = figure.dpi / 72
    spots = {label: axes.transData.transform(point[:2]) for label, point in points.items()}
    taken: list[Box] = [chance.get_window_extent(renderer).extents]
    for label, (x, y, dx, dy) in points.items():
        spot = spots[label]
        taken.append((spot[0] - 5 * scale, spot[1] - 5 * scale, spot[0] + 5 * scale, spot[1] + 5 * scale))
        for across, up in ((dx or 0.0, 0.0), (0.0, dy or 0.0)):
            low = axes.transData.transform((x - across, y - up)) - 2 * scale
            high = axes.transData.transform((x + across, y + up)) + 2 * scale
            taken.append((low[0], low[1], high[0], high[1]))
    directions = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)]
    # from the crowded to the lonely would need a search; from the right to the left serves points near 100 %
    for label in sorted(points, key=lambda name: (-points[name][0], points[name][1])):
        text = axes.annotate(label, points[label][:2], fontsize=8, color=looks[label]["color"], annotation_clip=False)
        size = text.get_window_extent(renderer)
        best: tuple[float, Box, tuple[float, float]] | None = None
        for distance in (8, 14, 22, 32, 44):
            for across, up in directions:
                x = spots[label][0] + across * distance * scale - (size.width if across < 0 else 0)
                y = spots[label][1] + up * distance * scale - size.height * (1 - up) / 2
                x -= size.width / 2 if across == 0 else 0
                box = (x, y, x + size.width, y + size.height)
                cost = (
                    5 * sum(_overlap(box, other) for other in taken) + 400 * _outside(box, frame.bounds) + 8 * distance
                )
                if best is None or cost < best[0]:
                    best = (cost, box, (x, y))
        if best is not None:
            taken.append(best[1])
            text.remove()
            _place(axes, label, points[label][:2], best[2], spots[label], scale, looks[label]["color"], best[1])


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
    looks, shown = _looks(measurements), 0
    for member in plan.members:
        found = [(m, robust(measurements, member.label, m)) for m in measures]
        found = [(m, spread) for m, spread in found if spread]
        if not found:
            continue
        start = clean(measurements, member.label, found[0][0])
        xs = [0.0, *(m.threat.radius for m, _ in found)]
        spreads = [start, *(spread for _, spread in found)]
        look = looks[member.label]
        axes.errorbar(
            xs, [s.mean for s in spreads], yerr=[s.deviation or 0.0 for s in spreads], label=member.label,
            markersize=4, linewidth=1.3, capsize=2, elinewidth=0.8, **look,
        )  # fmt: skip
        shown += 1
    if not shown:
        return None
    axes.axhline(100 / len(plan.test_set.classes), color="#999999", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    axes.annotate(
        "chance", (1.0, 100 / len(plan.test_set.classes)), xycoords=("axes fraction", "data"), xytext=(-2, 2),
        textcoords="offset points", color="#777777", fontsize=7.5, ha="right",
    )  # fmt: skip
    axes.set_xticks([0.0, *(m.threat.radius for m in measures)], ["0", *(m.threat.eps for m in measures)])
    axes.set_ylim(-3, 103)
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
