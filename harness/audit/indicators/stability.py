"""Whether the model still answers as it did during the attack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.audit import kinds
from harness.audit.attacked import Attacked, Indicator
from harness.audit.flags import Flag
from harness.audit.trials import Among, Trial, count
from harness.util.images import Images

__all__ = ["stability"]


def _probe(attacked: Attacked, name: str) -> Iterator[Trial]:
    """Ask again for some clean images and some adversarial examples."""
    images: tuple[Among, Images] = "all", attacked.x
    examples: tuple[Among, Images] = "broken", attacked.points
    for (among, points), expected in ((images, attacked.predicted), (examples, attacked.adversarial)):
        rows = attacked.rows(among)
        if len(rows):
            now = attacked.ask(points[rows].to(attacked.device)).argmax(dim=1).cpu()
            yield from attacked.trials(name, among, rows, {"changed": now != expected[rows]})


def _flags(trials: Sequence[Trial]) -> Iterator[Flag]:
    changed = count(trials, "changed")
    if changed:
        yield kinds.UNSTABLE_VERDICTS(changed=changed, of=len(trials))


stability = Indicator((kinds.UNSTABLE_VERDICTS,), _probe, _flags)
