"""A command that keeps its arguments as they were written, so that they can be run again elsewhere."""

from __future__ import annotations

from collections.abc import Collection

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


def written(without: Collection[str]) -> list[str]:
    """The arguments of the command that runs now.

    Args:
        without: options that are left out, with their values.
    """
    context = get_current_context()
    options = [one for one in context.command.params if isinstance(one, click.Option)]
    values = {name: 0 if one.is_flag or one.count else one.nargs for one in options for name in one.opts}
    kept: list[str] = []
    words = list(context.meta[_KEY])
    while words and words[0] != "--":
        name, equals, _ = words[0].partition("=")
        # a value may be the same word as an option
        size = 1 if equals else 1 + values.get(name, 0)
        if name not in without:
            kept += words[:size]
        del words[:size]
    return kept + words
