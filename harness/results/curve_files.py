"""A curve as a table and as a picture; equal curves give equal bytes."""

from __future__ import annotations

import csv
import io

import numpy as np

from harness.results.curve import Curve
from harness.util.text import counted, printable, spreadsheet_cell

__all__ = ["curve_picture", "curve_table"]

_COLUMNS = (
    *("checkpoint", "dataset", "split", "suite", "seed", "norm", "eps", "radius", "n"),
    *("robust_acc", "robust_low", "robust_high", "robust_alone_acc", "evaluation_id", "area", "median_distance"),
)
_ROBUST, _DISTANCES, _INK = "#0072b2", "#d55e00", "0.35"


def curve_table(curve: Curve) -> str:
    """Comma-separated values, a line a radius; area and median distance, which are of all, stand in each line."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(_COLUMNS)
    median = curve.median_distance
    whole = [f"{curve.area:.6f}", "" if median is None else f"{median:.6g}"]
    for point in curve.points:
        low, high = curve.interval(point)
        named = (curve.label, curve.dataset, curve.split, curve.suite, curve.seed, curve.norm, point.eps)
        accuracies = (curve.accuracy(point), low, high, point.alone / curve.n)
        lines.writerow(
            [*map(spreadsheet_cell, named), f"{point.radius:.9g}", curve.n]
            + [f"{accuracy:.6f}" for accuracy in accuracies]
            + [point.evaluation_id or "", *whole]
        )
    return text.getvalue()


def curve_picture(curve: Curve) -> bytes:
    """Robust accuracy against the radius with its 95 % intervals, and the distances that FAB found, as SVG."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "harness", "font.size": 9}):
        figure = Figure(figsize=(6.0, 4.0), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.grid(color="#e6e6e6", linewidth=0.6)
        axes.set_axisbelow(True)
        radii = [point.radius for point in curve.points]
        bounds = np.array([curve.interval(point) for point in curve.points]) * 100
        axes.fill_between(radii, bounds[:, 0], bounds[:, 1], color=_ROBUST, alpha=0.15, linewidth=0)
        shares = [100 * curve.accuracy(point) for point in curve.points]
        suite = _literal(curve.suite)
        axes.plot(radii, shares, marker="o", markersize=4, color=_ROBUST, label=f"survive {suite} (95 % interval)")
        if curve.distances is not None:
            axes.step(
                *_beyond(curve.distances, radii[-1]), where="post", color=_DISTANCES, linewidth=1, label="FAB alone"
            )
            axes.legend(frameon=False, loc="upper right")
        axes.set_xticks(radii, [point.eps for point in curve.points])
        axes.set_xlim(0, radii[-1] * 1.02)
        axes.set_ylim(0, 102)
        axes.set_xlabel(f"eps ({_literal(curve.norm)})")
        axes.set_ylabel("robust accuracy (%)")
        where = counted(curve.n, f"{curve.dataset} {curve.split} image")
        median = curve.median_distance
        said = f"area {curve.area:.3f}" + ("" if median is None else f", median distance found by FAB {median:.4g}")
        axes.set_title(f"{_literal(curve.label)}, {_literal(where)}\n{said}", loc="left", fontsize=9, color=_INK)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _beyond(distances: np.ndarray[tuple[int], np.dtype[np.float64]], largest: float) -> tuple[list[float], list[float]]:
    """At which radii up to the largest the share of samples whose distance is greater changes, and that share in %."""
    steps = np.unique(np.concatenate([[0.0], distances[distances <= largest], [largest]]))
    shares = 100 * (1 - np.searchsorted(np.sort(distances), steps, side="right") / len(distances))
    return steps.tolist(), shares.tolist()


def _literal(text: str) -> str:
    """Text in which matplotlib sees no formula."""
    return printable(text).replace("$", r"\$")
