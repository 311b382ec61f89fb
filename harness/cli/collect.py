"""``harness collect``."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from harness.cli import _options as options

__all__ = ["collect"]


@click.command()
@click.argument("folder", type=options.folder, metavar="DIR")
@click.option(
    "--adversarial/--no-adversarial",
    default=True,
    help="Whether to keep the adversarial examples beside the results, for 'harness verify'; kept if not given.",
)
@options.as_json
def collect(folder: Path, adversarial: bool, as_json: bool) -> None:
    """Join the parts that 'harness evaluate --shard' left in DIR into results.

    DIR is the --output of the shards. May be run at any time: it says which parts are there, and joins those
    evaluations that are complete. The result is the one that an evaluation with --deterministic gives: the same
    verdicts, adversarial examples and passes. Exits with 1 where parts are missing, damaged, changed, overlap or
    belong to another evaluation.
    """
    from harness.cli import _render, _shards
    from harness.errors import HarnessError

    collected = _shards.collect(folder, adversarial=adversarial)
    if as_json:
        _render.print_json([_shards.collected_as_json(one) for one in collected])
    else:
        _shards.show_collected(collected)
    missing = [one for one in collected if one.missing]
    if missing:
        named = ", ".join(map(str, missing[0].missing[:20]))
        raise HarnessError(
            f"parts of {missing[0].first.label} are missing: run 'harness evaluate' with --shard {named}"
        )
