"""Times as people write them."""

from __future__ import annotations

import re

from harness.errors import InvalidInput

__all__ = ["duration", "seconds_of"]

_UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds_of(text: str) -> float:
    """A time such as ``90s``, ``10m`` or ``1.5h``, in seconds.

    Raises:
        InvalidInput: anything else.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh])", text)
    if match is None:
        raise InvalidInput(f"a time is written as 90s, 10m or 2h, got {text!r}")
    return float(match[1]) * _UNITS[match[2]]


def duration(seconds: float) -> str:
    """Seconds as ``48 s``, ``12 min`` or ``3 h 20 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
