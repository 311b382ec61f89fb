"""A swap of BN values as one picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.batchnorm.attribution import Attribution
from harness.batchnorm.swap import Row, Swap
from harness.results.stats import wilson

__all__ = ["swap_picture"]

_CLEAN, _ROBUST, _INK = "#56B4E9", "#D55E00", "0.25"
_ROW = 0.27
_LINE = 0.34
"""Inches a row of a panel."""


def swap_picture(swap: Swap, attribution: Attribution, *, first: str, second: str, caption: str) -> bytes:
    """Every combination, the share of each part, the path from A to B, and the layers, as PNG.

    Args:
        attribution: of robust accuracy.
        first, second: names of A and B. caption: one line on what was measured.
    """
    combinations = swap.of_kind("combination") + swap.of_kind("b")
    path, layers = swap.of_kind("path"), swap.of_kind("layer")
    height = max(3.0, _ROW * len(combinations))
    below = _LINE * len(swap.layers) if layers else 0.0
    whole = (11.0, height + 1.55 + (below + 1.15 if layers else 0.0))
    figure = Figure(figsize=whole, dpi=150)
    FigureCanvasAgg(figure)

    def place(x: float, y: float, width: float, tall: float) -> Axes:
        panel = figure.add_axes((x / whole[0], y / whole[1], width / whole[0], tall / whole[1]))
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
        panel.tick_params(labelsize=8, length=2)
        return panel

    base = whole[1] - height - 0.8
    gap = 0.55
    share_height = (height - gap - 0.2) / 2 if path else height
    _draw_parts(place(0.3, base, 1.5, height), swap, combinations)
    _draw_combinations(place(1.85, base, 4.4, height), combinations, first)
    _draw_shares(place(7.3, base + height - share_height, 3.4, share_height), attribution)
    if path:
        _draw_path(place(7.3, base, 3.4, share_height), path, first, second)
    if layers:
        _draw_layers(place(1.85, 0.65, 8.85, below), swap, layers)
    figure.text(0.5, 1 - 0.3 / whole[1], f"BN values of {second} put into {first}", ha="center", fontsize=12)
    figure.text(0.5, 0.1 / whole[1], caption, ha="center", fontsize=8, color="0.35")
    content = io.BytesIO()
    # without the version of what drew it: equal figures give equal files
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _draw_parts(panel: Axes, swap: Swap, rows: Sequence[Row]) -> None:
    """Which parts come from B, a dot each, beside the bars."""
    for height, row in enumerate(rows):
        for position, part in enumerate(swap.parts):
            taken = part in row.mix.parts
            panel.plot(position, height, "o", markersize=6, color=_INK if taken else "0.88")
    panel.set_xticks(range(len(swap.parts)), swap.parts, rotation=35, ha="right", rotation_mode="anchor")
    panel.set_yticks([])
    panel.set_xlim(-0.6, len(swap.parts) - 0.4)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.set_title("from B", fontsize=9)
    panel.tick_params(length=0)
    for side in panel.spines.values():
        side.set_visible(False)


def _draw_combinations(panel: Axes, rows: Sequence[Row], first: str) -> None:
    for name, colour, offset in (("clean", _CLEAN, -0.19), ("robust", _ROBUST, 0.19)):
        for height, row in enumerate(rows):
            answers = row.clean if name == "clean" else row.robust
            value = 100 * float(answers.mean())
            low, high = (100 * bound for bound in wilson(int(answers.sum()), len(answers)))
            label = name if height == 0 else None
            panel.barh(height + offset, value, height=0.36, color=colour, label=label)
            panel.plot([low, high], [height + offset] * 2, color=_INK, linewidth=0.8)
            panel.text(max(high, value) + 1, height + offset, f"{value:.1f}", va="center", fontsize=6.5, color=_INK)
        # what A itself reaches, to compare with
        panel.axvline(100 * float((rows[0].clean if name == "clean" else rows[0].robust).mean()), color=colour, lw=0.6)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.set_xlim(0, 108)
    panel.set_xticks(range(0, 101, 20))
    panel.set_yticks(
        [row for row, one in enumerate(rows) if one.mix.kind == "b"],
        ["B itself" for one in rows if one.mix.kind == "b"],
    )
    panel.yaxis.tick_right()
    panel.set_xlabel(f"accuracy in % (lines: {first} itself; bars with 95 % intervals)", fontsize=8)
    panel.legend(loc="lower center", bbox_to_anchor=(0.5, 0.995), ncols=2, fontsize=8, frameon=False)


def _draw_shares(panel: Axes, attribution: Attribution) -> None:
    for position, effect in enumerate(attribution.effects):
        share = effect.share
        value, low, high = (100 * number for number in (share.difference, share.low, share.high))
        panel.bar(position, value, width=0.6, color=_ROBUST)
        panel.plot([position] * 2, [low, high], color=_INK, linewidth=1)
        where, side = (max(high, 0), "bottom") if value >= 0 else (min(low, 0), "top")
        panel.text(position, where, f"{value:+.1f}", ha="center", va=side, fontsize=8, color=_INK)
    panel.axhline(0, color=_INK, linewidth=0.6)
    panel.margins(y=0.15)
    panel.set_xticks(range(len(attribution.effects)), [effect.part for effect in attribution.effects])
    panel.set_ylabel("points", fontsize=8)
    gain = f"{100 * attribution.gain.difference:+.1f} points of {attribution.measure} accuracy"
    panel.set_title(f"share of each part in {gain}", fontsize=9)


def _draw_path(panel: Axes, rows: Sequence[Row], first: str, second: str) -> None:
    shares = [100 * row.mix.share for row in rows]
    for name, colour in (("clean", _CLEAN), ("robust", _ROBUST)):
        answers = [row.clean if name == "clean" else row.robust for row in rows]
        bounds = np.array([wilson(int(one.sum()), len(one)) for one in answers]) * 100
        panel.fill_between(shares, bounds[:, 0], bounds[:, 1], color=colour, alpha=0.2, linewidth=0)
        panel.plot(shares, [100 * float(one.mean()) for one in answers], "o-", color=colour, markersize=3, lw=1.4)
    panel.set_ylim(0, 104)
    panel.set_ylabel("accuracy in %", fontsize=8)
    panel.set_xlabel(f"share of the way from {first} to {second} in all BN values, %", fontsize=8)


def _draw_layers(panel: Axes, swap: Swap, rows: Sequence[Row]) -> None:
    """Robust accuracy of every layer's swaps: a line a layer, a column a choice of parts."""
    columns = [*swap.parts, "all of this layer", "all but this layer"]
    matrix = np.full((len(swap.layers), len(columns)), np.nan)
    for row in rows:
        mix = row.mix
        column = len(columns) - 1 if mix.without else len(mix.parts) > 1 and len(columns) - 2
        position = column or columns.index(mix.parts[0])
        matrix[swap.layers.index(str(mix.layer)), position] = 100 * float(row.robust.mean())
    panel.imshow(matrix, cmap=colormaps["viridis"], aspect="auto")
    middle = (np.nanmin(matrix) + np.nanmax(matrix)) / 2
    for (line, column), value in np.ndenumerate(matrix):
        colour = "black" if value > middle else "white"
        panel.text(column, line, f"{value:.1f}", ha="center", va="center", fontsize=7, color=colour)
    panel.set_xticks(range(len(columns)), columns)
    panel.xaxis.tick_top()
    panel.set_yticks(range(len(swap.layers)), swap.layers)
    panel.set_xlabel("robust accuracy in %, with only these values from B", fontsize=8)
    panel.tick_params(length=0)
    for side in panel.spines.values():
        side.set_visible(False)
