"""Axes of a plot in SVG: scales, ticks and grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

from harness.results.formats._page.markup import Markup, element, join

__all__ = ["HEIGHT", "WIDTH", "Axis", "frame", "percent_axis"]

WIDTH, HEIGHT = 440, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 44


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        title: in words. low, high: the values at its ends. ticks: values with their labels.
        vertical: whether it is the one on the left.
    """

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    vertical: bool = False

    def at(self, value: float) -> float:
        """Where a value lies, in units of the picture."""
        begin, end = (HEIGHT - _BOTTOM, _TOP) if self.vertical else (_LEFT, WIDTH - _RIGHT)
        return round(begin + (value - self.low) / (self.high - self.low) * (end - begin), 1)


def percent_axis(title: str, values: Sequence[float], *, vertical: bool = False) -> Axis:
    """An axis of fractions that shows all values, labelled in percent."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    step = next((step for step in (0.01, 0.02, 0.05, 0.1) if (high - low) / step <= 5), 0.2)
    first, last = floor(low / step - 0.2), ceil(high / step + 0.2)
    first, last = max(0, first), min(round(1 / step), last)
    ticks = tuple((place * step, f"{100 * place * step:.0f}") for place in range(first, last + 1))
    # a little more than the ticks, so that a point at 0 or 100 % is seen whole
    margin = 0.03 * (last - first) * step
    return Axis(title, first * step - margin, last * step + margin, ticks, vertical)


def frame(across: Axis, up: Axis) -> Markup:
    """Grid, ticks and titles."""
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    lines = [element("path", class_="grid", d=f"M{across.at(value)} {_TOP}V{bottom}") for value, _ in across.ticks]
    lines += [element("path", class_="grid", d=f"M{_LEFT} {up.at(value)}H{right}") for value, _ in up.ticks]
    labels = [
        element("text", label, x=across.at(value), y=bottom + 16, text_anchor="middle") for value, label in across.ticks
    ]
    labels += [element("text", label, x=_LEFT - 6, y=up.at(value) + 4, text_anchor="end") for value, label in up.ticks]
    middle = (_TOP + bottom) / 2
    titles = [
        element("text", across.title, x=(_LEFT + right) / 2, y=HEIGHT - 8, text_anchor="middle", class_="title"),
        element(
            "text", up.title, x=12, y=middle, text_anchor="middle", class_="title", transform=f"rotate(-90 12 {middle})"
        ),
    ]
    return join(*lines, *labels, *titles)
