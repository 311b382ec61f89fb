"""The samples on which two evaluations differ, with the adversarial examples that broke them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from harness.datasets import Dataset
from harness.errors import InvalidInput, ResultError
from harness.evaluation._material import Material
from harness.results import adversarial, store
from harness.results.compare import Pair
from harness.results.compare_picture import DifferingSample
from harness.results.record import Result

__all__ = ["differing_samples"]


def differing_samples(
    pair: Pair,
    first: str | Path,
    second: str | Path,
    *,
    most: int = 6,
    dataset: str | None = None,
    data_dir: str | Path | None = None,
    download: bool = False,
) -> list[DifferingSample]:
    """Some of the samples that survive in one of two stored results and are broken in the other.

    As many of each kind as there are, up to half of ``most``. A sample that the other model gets wrong without attack
    is no broken one.

    Args:
        pair: what `harness.results.compare.compare` found of the two. first, second: their files.
        most: samples in all.
        dataset, data_dir, download: as in `harness.verify`.

    Raises:
        InvalidInput: the images are not at hand, or are not those of the results.
        ResultError: a result is damaged, or keeps no adversarial examples although samples are broken in it alone.
    """
    material = Material(None, None, dataset, None, None, data_dir, download)
    found = []
    for path, indices, survives_in, broken_in in (
        (Path(second), pair.first_indices, pair.first, pair.second),
        (Path(first), pair.second_indices, pair.second, pair.first),
    ):
        found += _broken(path, indices, survives_in, broken_in, material, most // 2)
    return found


def _broken(
    path: Path,
    indices: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.int64]],
    survives_in: str,
    broken_in: str,
    material: Material,
    most: int,
) -> list[DifferingSample]:
    result, verdicts = store.read(path), store.read_verdicts(path)
    rows = np.flatnonzero(np.isin(verdicts.index, indices) & (verdicts.broken_by >= 0))[:most]
    if not len(rows):
        return []
    data, kept = _images(result, material), result.adversarial
    if kept is None:
        raise ResultError(
            f"the result {path} keeps no adversarial examples, so that nothing can be drawn of what it broke: evaluate "
            "without --no-adversarial"
        )
    points = adversarial.unpack(path.with_name(Path(kept.file).name), data.x, kept.sha256)
    places = np.searchsorted(points.rows, rows)
    return [
        DifferingSample(
            index=int(verdicts.index[row]),
            true=_name(data, int(verdicts.y[row])),
            predicted=_name(data, int(verdicts.adv_pred[row])),
            survives_in=survives_in,
            broken_in=broken_in,
            clean=data.x[row].numpy(),
            adversarial=points.points[place].to(torch.float32).numpy(),
        )
        for row, place in zip(rows.tolist(), places.tolist(), strict=True)
    ]


def _name(data: Dataset, label: int) -> str:
    # a model may know more classes than the data set
    return data.classes[label] if 0 <= label < len(data.classes) else f"class {label}"


def _images(result: Result, material: Material) -> Dataset:
    data = material.samples(result)
    if data.sha256 != result.dataset.sha256:
        raise InvalidInput(
            f"the images of {data.name} at hand are not those that {result.label} was evaluated on: name these with "
            "--dataset"
        )
    return data
