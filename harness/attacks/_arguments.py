"""Checks of what attacks are asked for."""

from __future__ import annotations

from harness.errors import InvalidInput

__all__ = ["at_least_one"]


def at_least_one(attack: str, **counts: int) -> None:
    """Refuse counts that are not whole numbers from 1.

    Raises:
        InvalidInput: naming the attack, the argument and the value.
    """
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidInput(f"{attack}'s {name} must be a whole number of at least 1, got {value!r}")
