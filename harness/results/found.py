"""A result in the store, as whoever asked for it gets it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.results import history, store
from harness.results.record import Result

__all__ = ["Stored", "latest"]


@dataclass(frozen=True)
class Stored:
    """A result in the store.

    Attributes:
        ran: whether it was attacked for it now.
    """

    path: Path
    result: Result
    ran: bool = False


def latest(root: Path, evaluation_id: str, checkpoint: str) -> Stored | None:
    """The stored result of an evaluation, if there is one.

    Of several records of it one under the checkpoint's own name is taken, of those the latest; never one that was taken
    back.

    Raises:
        ResultError: a file that is named like one of them, or the folder's history, is damaged.
    """
    taken_back = history.withdrawals(history.read(root))
    known = [found for found in store.find_all(root, evaluation_id) if taken_back(found[1]) is None]
    own = [(path, result) for path, result in known if result.checkpoint == checkpoint]
    if own:
        return Stored(*max(own, key=lambda found: found[1].recorded))
    return Stored(*known[0]) if known else None
