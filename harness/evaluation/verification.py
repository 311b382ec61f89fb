"""A stored result checked again by whoever has the weights and the data, with forward passes alone.

The adversarial examples beside a result show that its broken samples are broken. That makes its robust accuracy an
upper bound on that of the model. That the samples which survive could not be broken either, no file shows: that takes
another attack.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from harness import datasets
from harness.engine.types import Index
from harness.errors import CheckpointError, HarnessError, InvalidInput, ResultError
from harness.evaluation import _rejudging as rejudging
from harness.evaluation._material import Material
from harness.evaluation._rejudging import Mask
from harness.evaluation.target import Target
from harness.results import adversarial, store
from harness.results.identity import identified
from harness.results.record import ModelRecord, Result, Verdicts
from harness.util.devices import find_device
from harness.util.images import Images, cast, take
from harness.util.text import counted, printable
from harness.util.torch_state import pinned

__all__ = ["CHECKS", "Check", "Verification", "verify"]

CHECKS = {
    "files": "result and verdicts are as they were written, and agree with each other",
    "identity": "the hashes that it is known by follow from what it says",
    "model": "weights, architecture and training are those that it says",
    "data": "images and labels are those that it says",
    "clean": "every sample is classified without attack as it says",
    "examples": "there is one adversarial example for each broken sample, as it was written",
    "ball": "they lie within the radius and in [0, 1]",
    "broken": "they are misclassified as it says",
}
"""What is checked, in this order."""

_SHOWN = 5
_NOT_CHECKED = "not checked"


class Check(NamedTuple):
    """One thing that was checked.

    Attributes:
        name: one of `CHECKS`.
        holds: None where it could not be checked.
        text: what was found.
    """

    name: str
    holds: bool | None
    text: str


@dataclass(frozen=True)
class Verification:
    """What was found out about a stored result.

    Attributes:
        path: of the result file. result: its content; None where it cannot be read.
        checks: one for each of `CHECKS`.
        seconds: what it took.
    """

    path: Path
    result: Result | None
    checks: tuple[Check, ...]
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether everything could be checked, and holds."""
        return all(check.holds for check in self.checks)


def verify(
    result: str | Path,
    *,
    model: nn.Module | None = None,
    x: Tensor | None = None,
    y: Tensor | None = None,
    checkpoint: str | Path | None = None,
    dataset: str | None = None,
    bn_data: str | None = None,
    checkpoint_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
    download: bool = False,
    batch_size: int = 250,
    device: str | torch.device | None = None,
) -> Verification:
    """Judge a stored result again, without attacking.

    Args:
        result: its file.
        model, x, y: what `harness.evaluate` was given, where that was no registered checkpoint.
        checkpoint: name or path of the checkpoint, if it is not called as in the result.
        dataset: name or path of the data set, if it is none of the package's.
        bn_data: likewise, of the training images that BN statistics were estimated on.
        checkpoint_dir, data_dir, download: as in `harness.checkpoints.load` and `harness.datasets.load`.
        batch_size: images in one pass.
        device: where to run; None is a GPU where there is one.

    Raises:
        InvalidInput: a model without its samples, or the other way round; a device that there is not.
        ModelError: the model fails.
    """
    began, path = time.perf_counter(), Path(result)
    if len({part is None for part in (model, x, y)}) > 1:
        raise InvalidInput("a model that is handed over is verified on its samples: give model, x and y")
    given = (model, x, y) if model is not None and x is not None and y is not None else None
    material = Material(given, checkpoint, dataset, bn_data, checkpoint_dir, data_dir, download)
    try:
        record, wrong = store.read(path), None
    except ResultError as error:
        record, wrong = None, Check("files", False, str(error))
    found = [wrong] if record is None else _checks(path, record, material, batch_size, find_device(device))
    by_name = {check.name: check for check in found if check is not None}
    checks = tuple(by_name.get(name, Check(name, None, _NOT_CHECKED)) for name in CHECKS)
    return Verification(path, record, checks, time.perf_counter() - began)


def _checks(path: Path, result: Result, material: Material, batch_size: int, device: torch.device) -> Iterator[Check]:
    """The checks in their order, as far as each has what it needs."""
    try:
        verdicts = store.read_verdicts(path)
    except ResultError as error:
        yield Check("files", False, str(error))
        return
    yield Check("files", True, "they have their hashes; counts, steps and accuracies agree with the verdicts")
    same = identified(result) == result
    yield Check("identity", same, f"evaluation {result.evaluation_id[:16]}" if same else "it says another evaluation")
    try:
        threat, target = material.threat(result, path), material.target(result)
    except HarnessError as error:
        # what is damaged or changed is wrong; what is missing could not be checked
        yield Check("model", False if isinstance(error, CheckpointError) else None, str(error))
        yield _data_as_known(material, result)
        return
    model, data = _model(target, result), _data(target, result, verdicts)
    yield from (model, data)
    if not (model.holds and data.holds):
        return
    with pinned(device, dtype=target.dtype):
        network, x = target.prepared(threat, device), cast(target.x, target.dtype)
        classes = partial(_classes, network, result, batch_size=batch_size, device=device)
        yield classes("clean", x, verdicts.clean_pred, verdicts.index)
        broken = verdicts.broken_by >= 0
        if not broken.any():
            yield from (Check(name, True, "no sample was broken") for name in ("examples", "ball", "broken"))
            return
        examples, points = _examples(path, result, np.flatnonzero(broken), x)
        yield examples
        if points is None:
            return
        index = verdicts.index[broken]
        beyond = rejudging.outside(points, take(x, np.flatnonzero(broken)), threat, batch_size=batch_size)
        yield _of_samples("ball", beyond, index, f"all within {threat} and in [0, 1]", "lie outside of it")
        yield classes("broken", points, verdicts.adv_pred[broken], index)


def _model(target: Target, result: Result) -> Check:
    found, stated = _comparable(target.model_record), _comparable(result.model)
    differ = [name for name, value in found.items() if value != stated[name]]
    text = f"weights {result.model.sha256[:16]}" if not differ else f"the result has another {', '.join(differ)}"
    return Check("model", not differ, text)


def _comparable(record: ModelRecord) -> dict[str, object]:
    fields = record.model_dump(mode="json", exclude={"file_sha256"})  # the same weights may be packed in another file
    if record.source_sha256 is not None:
        fields["architecture"] = record.architecture.rpartition(":")[2]  # its file may lie elsewhere here
    return fields


def _data(target: Target, result: Result, verdicts: Verdicts) -> Check:
    found, stated = target.dataset_record, result.dataset
    differ = [name for name in ("sha256", "size", "classes", "shape") if getattr(found, name) != getattr(stated, name)]
    if not np.array_equal(target.index, verdicts.index):
        differ.append("order of images")
    elif not np.array_equal(target.y.numpy(), verdicts.y):
        differ.append("label of some image")
    text = f"{counted(result.n, 'image')} of {stated.name} {stated.split}, {stated.sha256[:16]}"
    return Check("data", not differ, f"the result has another {', '.join(differ)}" if differ else text)


def _data_as_known(material: Material, result: Result) -> Check:
    """What is known without reading any image: a result of images that its data set does not have is wrong."""
    stated = result.dataset
    if material.given is None and material.dataset is None and stated.name in datasets.names():
        known = datasets.about(stated.name)
        if (list(known.shape), len(known.classes)) != (stated.shape, stated.classes):
            text = (
                f"{stated.name} has images of shape {list(known.shape)} and {len(known.classes)} classes, the result "
                f"says {printable(stated.shape)} and {stated.classes:,}"
            )
            return Check("data", False, text)
    return Check("data", None, _NOT_CHECKED)


def _examples(path: Path, result: Result, rows: Index, x: Images) -> tuple[Check, Tensor | None]:
    """The adversarial examples of the broken samples, if they are there and as they were written."""
    kept, name = result.adversarial, "examples"
    if kept is None:
        return Check(name, None, f"the result keeps none of {len(rows):,}: evaluate without --no-adversarial"), None
    if not store.lies_beside(kept.file):
        return Check(name, False, f"the result names no file beside it, got {printable(kept.file)!r}"), None
    try:
        stored = adversarial.unpack(path.with_name(kept.file), x, kept.sha256)
    except ResultError as error:
        return Check(name, False, str(error)), None
    facts = adversarial.AdversarialFacts(
        evaluation_id=result.evaluation_id, weights_sha256=result.model.sha256, data_sha256=result.dataset.sha256
    )
    if stored.facts != facts or stored.points.dtype != x.dtype:
        return Check(name, False, "they are those of another evaluation"), None
    if not np.array_equal(stored.rows, rows):
        return Check(
            name, False, f"they are of {counted(len(stored.rows), 'sample')}, and not of those that are broken"
        ), None
    return Check(name, True, f"{len(rows):,}, one for each broken sample"), stored.points


def _classes(
    network: nn.Module,
    result: Result,
    name: str,
    images: Images,
    stated: Index,
    index: Index,
    *,
    batch_size: int,
    device: torch.device,
) -> Check:
    if result.model.bn_stats == "batch":
        return Check(name, None, "with the BN statistics of the batch, classes depend on how images are packed")
    found = rejudging.classify(network, images, stated, batch_size=batch_size, device=device)
    close = int(found.close.sum())
    rounding = f" ({close:,} of them but for rounding)" if close else ""
    text = f"all {len(index):,} classified as stated{rounding}"
    return _of_samples(name, found.otherwise, index, text, "are classified otherwise")


def _of_samples(name: str, wrong: Mask, index: Index, text: str, what: str) -> Check:
    """A check of many samples, with the positions of the first that are wrong."""
    bad = index[wrong].tolist()
    more = ", ..." if len(bad) > _SHOWN else ""
    shown = f"{len(bad):,} of {len(index):,} {what}: sample {', '.join(map(str, bad[:_SHOWN]))}{more}"
    return Check(name, not bad, shown if bad else text)
