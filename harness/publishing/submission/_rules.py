"""The rules of RobustBench, each checked as far as it can be here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from harness.boards.suites_held import deviation
from harness.publishing.evidence import Evidence, doubts
from harness.publishing.submission._board import BOARDS, board_of
from harness.publishing.submission._entry import percentage
from harness.publishing.submission._probe import Probe
from harness.results.measures import measure_of
from harness.threat import ThreatModel
from harness.util.text import printable

__all__ = ["Checked", "Outcome", "checked"]

Outcome = Literal["passed", "failed", "not checkable"]

_AUTOATTACK = "autoattack"
_LONGEST = 500
"""Characters of a difference that are shown."""

_GRADIENT = (
    "gradient-masking",
    "gradient-misleads",
    "gradient-shattered",
    "gradient-vanishing",
    "grad-mode-dependent",
    "nan-gradient",
    "no-gradient",
    "quantised",
    "zero-gradient",
)
_RANDOM = (
    "batch-dependent",
    "bn-no-statistics",
    "calls-counted",
    "gradient-random",
    "random-numbers",
    "randomised",
    "seeded-inside",
    "state-kept",
    "train-mode",
)
_LOOP = ("dynamic-defence",)
_RANGE = ("constants-for-bytes", "images-dark", "input-range")
"""Codes of the flags that say that a rule on models is not met."""


class Checked(NamedTuple):
    """One rule.

    Attributes:
        rule: what is asked. outcome: whether it is met. figure: what was found.
    """

    rule: str
    outcome: Outcome
    figure: str


def checked(evidence: Evidence, probe: Probe, *, external: bool) -> list[Checked]:
    """The rules that follow from result, model and images; those on the files of the folder come from `_folder`.

    Args:
        external: for an evaluation of somebody else's entry, which may be made by any attack.
    """
    rules: list[Callable[[Evidence], Checked]] = [_board, _eps, _images, _statistics]
    rules += [_lower] if external else [_suite, _reported]
    return [
        *(rule(evidence) for rule in rules),
        *_of_model(probe),
        _clean_of_doubt(evidence),
        Checked("the images are the official test set", "not checkable", f"SHA-256 {evidence.result.dataset.sha256}"),
    ]


def _outcome(met: bool) -> Outcome:
    return "passed" if met else "failed"


def _board(evidence: Evidence) -> Checked:
    result = evidence.result
    boards = ", ".join(f"{board.dataset} {board.threat}" for board in BOARDS)
    found = f"{result.dataset.name} {result.threat.norm}; RobustBench has {boards}"
    return Checked("there is a leaderboard of the data set and norm", _outcome(board_of(result) is not None), found)


def _eps(evidence: Evidence) -> Checked:
    board, threat = board_of(evidence.result), evidence.result.threat
    rule = "the radius is the leaderboard's"
    if board is None:
        return Checked(rule, "not checkable", f"{threat.eps}; there is no such leaderboard")
    same = ThreatModel(board.threat, board.eps).radius == threat.radius
    return Checked(rule, _outcome(same), f"{threat.eps}, expected {board.eps}")


def _images(evidence: Evidence) -> Checked:
    board, result = board_of(evidence.result), evidence.result
    expected = result.dataset.size if board is None else board.images
    met = result.n == expected and not result.partial
    return Checked("the whole test set was evaluated", _outcome(met), f"{result.n:,} of {expected:,} images")


def _statistics(evidence: Evidence) -> Checked:
    kind = evidence.result.model.bn_stats
    return Checked("the model is the one that its weights hold", _outcome(kind == "stored"), f"BN statistics: {kind}")


def _suite(evidence: Evidence) -> Checked:
    result = evidence.result
    # a suite's name is only a name: what ran are the steps
    differs = deviation(result)
    met = measure_of(result.suite).name == _AUTOATTACK and differs is None
    found = f"suite {result.suite}{f': {printable(differs, longest=_LONGEST)}' if differs else ''}"
    return Checked("the attack is AutoAttack, standard version", _outcome(met), found)


def _reported(evidence: Evidence) -> Checked:
    figure = f"{percentage(evidence.result.robust_acc)} % here; the entry reports the same figure"
    return Checked("the maintainers' own run of AutoAttack gives this robust accuracy", "not checkable", figure)


def _lower(evidence: Evidence) -> Checked:
    figure = f"{percentage(evidence.result.robust_acc)} % here; compare it with the board"
    return Checked("the robust accuracy is lower than the entry's so far", "not checkable", figure)


def _of_model(probe: Probe) -> Iterator[Checked]:
    tried = f"of {probe.images} images"
    rows = (
        (
            "gradients with respect to the images are in general not zero",
            _GRADIENT,
            probe.with_gradient == probe.images,
            f"not zero on {probe.with_gradient} {tried}",
        ),
        (
            "the forward pass is deterministic",
            _RANDOM,
            probe.difference == 0,
            f"two passes {tried} differ by {probe.difference:g}",
        ),
        ("the forward pass has no optimisation loop", _LOOP, True, f"no backward pass in the forward pass {tried}"),
        ("images lie in [0, 1] and the model normalises them itself", _RANGE, True, f"audited on {probe.images}"),
    )
    for rule, codes, met, figure in rows:
        raised = [flag.text for flag in probe.flags if flag.code in codes]
        found = "; ".join([figure, *raised] if met or not raised else raised)
        yield Checked(rule, _outcome(met and not raised and not probe.refused), probe.refused or found)


def _clean_of_doubt(evidence: Evidence) -> Checked:
    found = list(doubts(evidence))
    checks = len(evidence.verification.checks)
    figure = "; ".join(found) or f"all {checks} checks of harness verify hold, no flag, not partial"
    return Checked("the result is complete, without flags, and verified", _outcome(not found), figure)
