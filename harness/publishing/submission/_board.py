"""The leaderboards of RobustBench under norms, and how its loader reads weights for each data set."""

from __future__ import annotations

from typing import NamedTuple

from harness.results.record import Result
from harness.threat import ThreatModel

__all__ = ["BOARDS", "Board", "Layout", "board_of", "eps_text", "layout_of"]


class Board(NamedTuple):
    """One leaderboard.

    Attributes:
        dataset, threat: as RobustBench writes them. eps: as its entries write it.
        images: how many of the test set an entry is evaluated on.
    """

    dataset: str
    threat: str
    eps: str
    images: int


BOARDS = (
    Board("cifar10", "Linf", "8/255", 10_000),
    Board("cifar10", "L2", "0.5", 10_000),
    Board("cifar100", "Linf", "8/255", 10_000),
    Board("imagenet", "Linf", "4/255", 5_000),
)


class Layout(NamedTuple):
    """How weights must lie in a file for RobustBench's ``load_model``.

    Attributes:
        attribute: what the network is called in the module that its normalisation is in, too.
        prefix: of the names in the file.
    """

    attribute: str
    prefix: str


# the loader takes "model." off all names, and puts it in front of those for ImageNet
_LAYOUTS = {"imagenet": Layout("model", "")}
_USUAL = Layout("network", "network.")


def board_of(result: Result) -> Board | None:
    """The board that a result is for; None where RobustBench has none of its data set and norm."""
    found = (board for board in BOARDS if (board.dataset, board.threat) == (result.dataset.name, result.threat.norm))
    return next(found, None)


def eps_text(result: Result) -> str:
    """The radius as the board writes it, where it is the board's."""
    board = board_of(result)
    same = board is not None and ThreatModel(board.threat, board.eps).radius == result.threat.radius
    return board.eps if board is not None and same else result.threat.eps


def layout_of(dataset: str) -> Layout:
    """How the weights of a network for ``dataset`` must lie in a file."""
    return _LAYOUTS.get(dataset, _USUAL)
