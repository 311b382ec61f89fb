"""Samples on which two models differ, as a picture; equal samples give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.util.text import printable

__all__ = ["DifferingSample", "compare_picture"]

Image = np.ndarray[Any, np.dtype[np.float32]]

_INCH, _MARGIN, _HEAD, _GAP = 1.35, 0.15, 0.36, 0.42
_INK = "0.25"


@dataclass(frozen=True, eq=False)
class DifferingSample:
    """A sample that survives in one evaluation and is broken in the other.

    Attributes:
        index: its position in the data set. true, predicted: names of its class, and of what the broken model takes the
            adversarial example for.
        survives_in, broken_in: labels of the evaluations.
        clean, adversarial: ``[C, H, W]`` in [0, 1]; the example is of the model that was broken.
    """

    index: int
    true: str
    predicted: str
    survives_in: str
    broken_in: str
    clean: Image
    adversarial: Image


def compare_picture(samples: Sequence[DifferingSample], caption: str) -> bytes:
    """Clean image, adversarial example and magnified difference side by side, a row a sample, as PNG.

    Differences are all magnified by one factor, around grey.

    Args:
        samples: at least one.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    deltas = [sample.adversarial - sample.clean for sample in samples]
    largest = max(float(np.abs(delta).max()) for delta in deltas)
    factor = 0.5 / largest if largest > 0 else 1.0
    row = _INCH + _GAP
    size = (3 * _INCH + 4 * _MARGIN, _HEAD + row * len(samples))
    figure = Figure(figsize=size, dpi=150)
    FigureCanvasAgg(figure)
    for place, (sample, delta) in enumerate(zip(samples, deltas, strict=True)):
        top = size[1] - _HEAD - place * row
        images = (
            (sample.clean, f"sample {sample.index}: {_text(sample.true)}"),
            (sample.adversarial, f"taken for {_text(sample.predicted)}"),
            (0.5 + factor * delta, f"difference × {factor:.3g}"),
        )
        for column, (image, title) in enumerate(images):
            left = _MARGIN + column * (_INCH + _MARGIN)
            axes = figure.add_axes((left / size[0], (top - row + 0.06) / size[1], _INCH / size[0], _INCH / size[1]))
            axes.set_axis_off()
            axes.imshow(_shown(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
            axes.set_title(title, fontsize=7, pad=2.5, color=_INK)
        broken = f"survives in {_text(sample.survives_in)}, broken in {_text(sample.broken_in)}"
        figure.text(_MARGIN / size[0], (top - 0.15) / size[1], broken, fontsize=7, weight="bold", color=_INK)
    figure.text(_MARGIN / size[0], 1 - 0.22 / size[1], _text(caption), fontsize=8, color=_INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _shown(image: Image) -> np.ndarray[Any, Any]:
    """What matplotlib draws: ``[H, W]`` in grey, ``[H, W, 3]`` in colour; other numbers of channels as their mean."""
    clipped = image.clip(0, 1)
    return clipped.transpose(1, 2, 0) if len(clipped) == 3 else clipped.mean(axis=0)


def _text(text: str) -> str:
    """Text in which matplotlib sees no formula, and which fits."""
    return printable(text, longest=60).replace("$", r"\$")
