"""Similarities as files: a matrix in CSV, and a picture of all of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.representations._compare import Similarity

__all__ = ["picture", "table"]

_WRITTEN = 14
"""Up to so many layers the numbers are written into the cells."""


def table(similarity: Similarity) -> str:
    """The matrix in CSV: one line a layer of the first model, one column a layer of the second; NaN is empty."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["layer", *similarity.columns])
    for name, row in zip(similarity.rows, similarity.matrix, strict=True):
        lines.writerow([name, *("" if np.isnan(value) else f"{value:.6f}" for value in row)])
    return text.getvalue()


def picture(similarities: Sequence[Similarity], *, first: str, second: str, caption: str) -> bytes:
    """All matrices side by side, as PNG.

    Args:
        first, second: names of the models. caption: one line on what was measured.
    """
    rows, columns, panels = len(similarities[0].rows), len(similarities[0].columns), len(similarities)
    cell = 0.46 if max(rows, columns) <= _WRITTEN else 0.28
    width, height = max(3.1, cell * columns), max(2.8, cell * rows)
    longest = max(map(len, (*similarities[0].rows, *similarities[0].columns)))
    # in inches: labels of layers on the left, slanted ones below, then the axis label and the caption
    left, below, above, between, right = 0.5 + 0.075 * longest, 0.6 + 0.055 * longest, 0.75, 0.25, 0.9
    whole = left + panels * width + (panels - 1) * between + right, below + height + above
    figure = Figure(figsize=whole, dpi=150)
    FigureCanvasAgg(figure)

    def place(x: float, y: float, w: float, h: float) -> Axes:
        return figure.add_axes((x / whole[0], y / whole[1], w / whole[0], h / whole[1]))

    for number, similarity in enumerate(similarities):
        panel = place(left + number * (width + between), below, width, height)
        _draw(panel, similarity, second)
        if number:
            panel.set_yticks([])
        else:
            panel.set_ylabel(f"layers of {first}", fontsize=9)
    image = figure.axes[0].images[0]
    scale = figure.colorbar(image, cax=place(whole[0] - right + 0.15, below, 0.13, height))
    scale.set_label("linear CKA", fontsize=9)
    scale.ax.tick_params(labelsize=8, length=2)
    scale.outline.set_visible(False)
    middle = left + (whole[0] - left - right) / 2
    figure.text(
        middle / whole[0], 1 - 0.28 / whole[1], f"{first} and {second}, layer by layer", ha="center", fontsize=12
    )
    figure.text(middle / whole[0], 0.1 / whole[1], caption, ha="center", fontsize=8, color="0.35")
    content = io.BytesIO()
    # without the version of what drew it: equal matrices give equal files
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _draw(panel: Axes, similarity: Similarity, second: str) -> None:
    colours = colormaps["viridis"].with_extremes(bad="0.85")
    # the input is at the lower left, as it does in the literature
    panel.imshow(np.ma.masked_invalid(similarity.matrix), vmin=0, vmax=1, cmap=colours, origin="lower", aspect="auto")
    ours, theirs = (f"{100 * value:.1f} %" for value in similarity.accuracies)
    panel.set_title(f"{similarity.inputs} images (accuracy {ours}, {theirs})", fontsize=9)
    panel.set_xlabel(f"layers of {second}", fontsize=9)
    panel.set_xticks(range(len(similarity.columns)), similarity.columns, rotation=45, ha="right", fontsize=8)
    panel.set_yticks(range(len(similarity.rows)), similarity.rows, fontsize=8)
    panel.tick_params(length=0)
    for side in panel.spines.values():
        side.set_visible(False)
    if max(similarity.matrix.shape) > _WRITTEN:
        return
    for (i, j), value in np.ndenumerate(similarity.matrix):
        if not np.isnan(value):
            shown = "1" if value > 0.995 else f"{value:.2f}".removeprefix("0")
            panel.text(j, i, shown, ha="center", va="center", fontsize=7, color="black" if value > 0.6 else "white")
