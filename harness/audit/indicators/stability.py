"""Whether the model still answers as it did during the attack."""

from __future__ import annotations

from collections.abc import Iterator

from harness.audit import kinds
from harness.audit.attacked import Attacked
from harness.audit.flags import Flag

__all__ = ["stability"]


def stability(attacked: Attacked) -> Iterator[Flag]:
    """Ask again for some clean images and some adversarial examples."""
    changed = of = 0
    for mask, points, expected in (
        (attacked.y >= 0, attacked.x, attacked.predicted),
        (attacked.broken, attacked.points, attacked.adversarial),
    ):
        rows = attacked.rows(mask)
        if len(rows):
            now = attacked.ask(points[rows].to(attacked.device)).argmax(dim=1).cpu()
            changed, of = changed + int((now != expected[rows]).sum()), of + len(rows)
    if changed:
        yield kinds.UNSTABLE_VERDICTS(changed=changed, of=of)
