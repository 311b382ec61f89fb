"""A command that keeps its arguments as they were written, so that they can be run again elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

import rich_click as click
from click import get_current_context

__all__ = ["Remembering", "written"]

_KEY = "harness.cli.written"


class Remembering(click.RichCommand):
    """A command whose arguments `written` gives."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As in click."""
        ctx.meta[_KEY] = list(args)
        return super().parse_args(ctx, args)


def written(without: Mapping[str, int]) -> list[str]:
    """The arguments of the command that runs now.

    Args:
        without: options that are left out -> how many values each takes.
    """
    kept: list[str] = []
    words = iter(get_current_context().meta[_KEY])
    for word in words:
        name, equals, _ = word.partition("=")
        if name not in without:
            kept.append(word)
        elif not equals:
            for _ in range(without[name]):
                next(words, None)
    return kept
