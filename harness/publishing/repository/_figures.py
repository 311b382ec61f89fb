"""The figures of a result in the two forms of the Hugging Face Hub, built by its own classes."""

from __future__ import annotations

import re
from typing import Any

from harness.results.record import Result
from harness.util.hub import hub
from harness.util.text import printable

__all__ = ["HUB_DATASETS", "entries", "model_index"]

HUB_DATASETS = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "imagenet": "ILSVRC/imagenet-1k",
    "mnist": "ylecun/mnist",
}
"""Data sets by the names that results know them by -> their repositories on the Hub."""


def entries(result: Result, dataset: str, source: str | None) -> list[dict[str, Any]]:
    """The content of a file in ``.eval_results``: clean and robust accuracy in percent.

    Args:
        dataset: repository of the data set on the Hub. source: address of what shows the figures, such as the model's.
    """
    package = hub()
    found = [
        package.EvalResultEntry(
            dataset_id=dataset,
            task_id=task,
            value=round(100 * value, 2),
            date=result.started,
            source_url=source,
            source_name="robust-harness" if source else None,
            notes=notes,
        )
        for task, value, notes in _tasks(result)
    ]
    converted: list[dict[str, Any]] = package.eval_result_entries_to_yaml(found)
    return converted


def model_index(result: Result, dataset: str | None) -> list[Any]:
    """The same figures as `EvalResult` of huggingface_hub, for the head of a model card."""
    package = hub()
    name = printable(result.dataset.name)
    return [
        package.EvalResult(
            task_type="image-classification",
            task_name="Image classification",
            dataset_type=dataset or name,
            dataset_name=f"{name}, first {result.n:,} images" if result.partial else name,
            dataset_split=printable(result.dataset.split),
            metric_type="accuracy",
            metric_name=notes,
            metric_value=round(100 * value, 2),
        )
        for _, value, notes in _tasks(result)
    ]


def _tasks(result: Result) -> list[tuple[str, float, str]]:
    """Identifier, value and words of each figure."""
    images = f"{result.n:,} of {result.dataset.size:,} images" if result.partial else f"all {result.n:,} images"
    clean = ("clean-accuracy", result.clean_acc, f"accuracy without attack, {images}")
    if not result.steps:
        return [clean]
    # names in a result are anybody's
    suite, threat = printable(result.suite), printable(f"{result.threat.norm} {result.threat.eps}")
    task = re.sub(r"[^a-z0-9]+", "-", f"robust-accuracy {suite} {threat}".lower()).strip("-")
    return [clean, (task, result.robust_acc, f"robust accuracy, {suite}, {threat}, {images}")]
