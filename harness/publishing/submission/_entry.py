"""The entry of a model in RobustBench's ``model_info`` folder."""

from __future__ import annotations

from typing import Any

from harness.publishing.submission._board import eps_text
from harness.publishing.submission._paper import Paper
from harness.results.record import Result

__all__ = ["architecture_label", "entry", "external_entry", "percentage"]

_LABELS = {
    "leaky-resnet32": "PreActResNet-32",
    "lenet5": "LeNet-5",
    "preact-resnet18": "PreActResNet-18",
    "resnet20": "ResNet-20",
    "resnet32": "ResNet-32",
    "resnet44": "ResNet-44",
    "resnet56": "ResNet-56",
    "wrn-28-10": "WideResNet-28-10",
}
"""How boards call the architectures of this package that they have."""


def architecture_label(architecture: str) -> str:
    """An architecture as readers of a board know it."""
    return _LABELS.get(architecture, architecture.rpartition(":")[2])


def percentage(accuracy: float) -> str:
    """A fraction as entries write accuracies: "56.94"."""
    return f"{100 * accuracy:.2f}"


def entry(
    result: Result, paper: Paper, *, architecture: str, additional_data: bool, footnote: str | None = None
) -> dict[str, Any]:
    """The entry of a new model: names, order and types are those of RobustBench's entries.

    Args:
        architecture: as readers know it. additional_data: whether more than the training set was used.
        footnote: shown under the board; left out where there is none.
    """
    robust = percentage(result.robust_acc)
    return {
        "link": paper.url,
        "name": paper.title,
        "authors": paper.authors,
        "additional_data": additional_data,
        "number_forward_passes": 1,
        "dataset": result.dataset.name,
        "venue": paper.venue,
        "architecture": architecture,
        "eps": eps_text(result),
        "clean_acc": percentage(result.clean_acc),
        "reported": robust,
        "autoattack_acc": robust,
        **({"footnote": footnote} if footnote else {}),
        "unreliable": False,
    }


def external_entry(result: Result, *, footnote: str | None = None) -> dict[str, Any]:
    """The field to add to somebody else's entry."""
    return {"external": percentage(result.robust_acc), **({"footnote": footnote} if footnote else {})}
