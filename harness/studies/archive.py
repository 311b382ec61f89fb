"""Everything that a report was made of, in one small file beside it, so that anyone can make it again.

The file is a compressed tar. For every network it holds the manifest, the log of its training, and for every evaluation
the result and two bits a sample: who is right, and who is right under attack. Weights and images are not in it; of the
training images it says how many they were, and their hash. Nothing is unpacked to disk when it is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from harness import datasets, models
from harness.batchnorm.statistics import STORED
from harness.checkpoints import Checkpoint, Manifest
from harness.datasets import Dataset
from harness.errors import HarnessError, ResultError
from harness.models import Model
from harness.results.record import Result, rounded_radius
from harness.studies.measurements import Bits, Measurement, Measurements, Network
from harness.studies.planning import Known, Measure, Plan, labels_of
from harness.studies.spec import Study
from harness.util.limits import MOST_CLASSES, is_image_shape
from harness.util.reading import parse_json, read_bounded
from harness.util.text import printable
from harness.util.validation import Record, validate

__all__ = ["NAME", "Archive", "packed", "read"]

NAME = "measurements.tar.xz"

_NOTES = ("run.json", "registration.json", "search.json")
_TRAINING_IMAGES = "training-images.json"
_MOST_IMAGES = 1 << 32
_MOST_PACKED, _MOST_CONTENT, _MOST_FILES = 1 << 26, 1 << 27, 100_000


class _Evaluation(Record):
    """One evaluation as it is kept.

    Attributes:
        result: as it was stored. correct, robust: hexadecimal bits, a sample each. sha256: of both.
    """

    result: dict[str, Any]
    correct: str
    robust: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _Images(Record):
    """Images of a study, without the images.

    Attributes:
        n: how many were used. size: of the whole split.
        sha256: of the images and labels that were used, in their order.
    """

    name: str
    split: str
    n: int = Field(ge=1)
    size: int = Field(ge=1, le=_MOST_IMAGES)
    shape: tuple[int, int, int]
    classes: int = Field(ge=2, le=MOST_CLASSES)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _possible(self) -> _Images:
        if not is_image_shape(self.shape):
            raise ValueError(f"images of shape {self.shape} were expected to have sides of at least 1")
        if self.n > self.size:
            raise ValueError(f"{self.n} images are more than the {self.size} of the whole split")
        return self


def packed(measurements: Measurements, output: Path) -> bytes:
    """The file's content; equal measurements give equal bytes.

    Args:
        output: of the study, whose notes are kept too.
    """
    files: dict[str, bytes] = {}
    for name in _NOTES:
        if (output / name).is_file():
            files[name] = (output / name).read_bytes()
    if measurements.plan.train_set is not None:
        files[_TRAINING_IMAGES] = _json(_described(measurements.plan.train_set).model_dump(mode="json"))
    for label, networks in measurements.networks.items():
        for seed, network in networks.items():
            folder = f"networks/{label}/{seed}"
            files[f"{folder}/manifest.json"] = _json(network.manifest.model_dump(mode="json"))
            files[f"{folder}/log.json"] = _json([dict(row) for row in network.log])
            for measure, outcome in network.measured.items():
                files[f"{folder}/{_file(measure)}"] = _json(_evaluation(outcome).model_dump(mode="json"))
    buffer = io.BytesIO()
    with tarfile.TarFile(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(files):
            about = tarfile.TarInfo(name)
            about.size = len(files[name])
            tar.addfile(about, io.BytesIO(files[name]))
    return lzma.compress(buffer.getvalue(), preset=6)


@dataclass(frozen=True)
class Archive:
    """What such a file holds.

    Attributes:
        path: where it lies, for messages. files: by name.
    """

    path: Path
    files: Mapping[str, bytes] = field(repr=False)

    @property
    def notes(self) -> dict[str, bytes]:
        """The notes of the study, by name."""
        return {name: content for name, content in self.files.items() if name in _NOTES}

    def known(self, study: Study) -> Known:
        """What is said of the images and of the checkpoints of a study, so that none of them must be at hand.

        Raises:
            ResultError: it holds no evaluation, or damaged ones.
        """
        labels = labels_of(study)
        with self._usable():
            evaluations = [
                name
                for name in self.files
                if name.startswith("networks/") and Path(name).name not in ("manifest.json", "log.json")
            ]
            if not evaluations:
                raise ValueError("there is no evaluation in it")
            some = evaluations[0]
            result = _measurement(validate(_Evaluation, parse_json(self.files[some]), some), some).result
            tested_on = validate(_Images, {"n": result.n, **result.dataset.model_dump()}, "the test images")
            trained_on = None
            if _TRAINING_IMAGES in self.files:
                trained_on = validate(_Images, parse_json(self.files[_TRAINING_IMAGES]), "the training images")
            sources = {}
            for label, entry in zip(labels, study.entries(), strict=True):
                folder = f"networks/{label}/{study.all_seeds[0]}"
                if entry.checkpoint is not None and f"{folder}/manifest.json" in self.files:
                    manifest = self._manifest(folder, label)
                    # a file is named after the statistics, last of all
                    has_bn = any(
                        one.startswith(f"{folder}/") and not one.endswith(f"_{STORED}.json") for one in evaluations
                    )
                    sources[label] = Checkpoint(Path(manifest.file), manifest, _blank_model(manifest, has_bn))
            return Known(_blank(tested_on), sources, None if trained_on is None else _blank(trained_on))

    def measurements(self, plan: Plan) -> Measurements:
        """The measurements of a study.

        Raises:
            ResultError: they contradict themselves, or are of networks that this study does not train, or of none.
        """
        networks: dict[str, dict[int, Network]] = {}
        with self._usable():
            for member in plan.members:
                for seed in plan.seeds_of(member):
                    if f"networks/{member.label}/{seed}/manifest.json" in self.files:
                        networks.setdefault(member.label, {})[seed] = self._network(member.label, seed, plan)
        if not networks:
            raise ResultError(f"the measurements {self.path} hold none of the networks of the study {plan.study.name}")
        return Measurements(plan, networks)

    def _network(self, label: str, seed: int, plan: Plan) -> Network:
        folder = f"networks/{label}/{seed}"
        manifest = self._manifest(folder, label)
        expected = plan.names.get((label, seed))
        if expected is not None and manifest.name not in (expected, f"{expected}_best"):
            raise ValueError(f"{label} with seed {seed} is {manifest.name}, but this study trains {expected}")
        measured = {}
        for measure in plan.measures_of(plan.member(label)):
            kept = self.files.get(f"{folder}/{_file(measure)}")
            if kept is not None:
                what = f"the evaluation of {label} with seed {seed} by {measure.suite}"
                outcome = _measurement(validate(_Evaluation, parse_json(kept), what), what)
                _check(outcome.result, manifest, measure, plan.test_set, what)
                measured[measure] = outcome
        return Network(label, seed, manifest, measured, self._log(folder, label))

    def _log(self, folder: str, label: str) -> tuple[dict[str, float], ...]:
        rows = parse_json(self.files.get(f"{folder}/log.json", b"[]"))
        log = tuple({name: float(value) for name, value in row.items()} for row in rows)
        if any(not {"epoch", "phase"} <= set(row) for row in log):
            raise ValueError(f"a row of the log of {label} lacks its epoch or its phase")
        return log

    def _manifest(self, folder: str, label: str) -> Manifest:
        return validate(Manifest, parse_json(self.files[f"{folder}/manifest.json"]), f"the manifest of {label}")

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError, AttributeError, OverflowError, HarnessError) as error:
            raise _unusable(self.path, error) from error


def read(path: Path) -> Archive:
    """Such a file.

    Raises:
        ResultError: it is missing, damaged or too large.
    """
    try:
        return Archive(path, dict(_members(read_bounded(path, _MOST_PACKED))))
    except (OSError, ValueError, EOFError, tarfile.TarError, lzma.LZMAError) as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> ResultError:
    return ResultError(f"the measurements {path} cannot be used: {printable(error, longest=500)}")


def _described(images: Dataset) -> _Images:
    return _Images(
        name=images.name,
        split=images.split,
        n=len(images),
        size=images.size,
        shape=images.shape,
        classes=len(images.classes),
        sha256=images.sha256,
    )


def _blank(about: _Images) -> Dataset:
    threats = datasets.about(about.name).threats if about.name in datasets.names() else ()
    images = Dataset(
        name=about.name,
        split=about.split,
        x=torch.zeros(()).expand(about.n, *about.shape),  # which takes no memory
        y=torch.zeros((), dtype=torch.int64).expand(about.n),
        classes=tuple(map(str, range(about.classes))),
        threats=threats,
        size=about.size,
        indices=torch.zeros((), dtype=torch.int64).expand(about.n),
    )
    vars(images)["sha256"] = about.sha256  # of those that were used
    return images


def _blank_model(manifest: Manifest, has_bn: bool) -> Model:
    about: dict[str, Any] = {
        "classes": manifest.classes,
        "shape": manifest.shape,
        "norm_layer": manifest.norm_layer,
        "normalization": manifest.normalization,
    }
    try:
        return models.build(manifest.architecture, arguments=manifest.arguments, seed=0, **about)
    except HarnessError:  # code of somebody's own, which a report does not need
        layer = nn.BatchNorm2d(1) if has_bn else nn.Identity()
        return Model(layer, architecture=manifest.architecture, **about)


def _members(content: bytes) -> Iterator[tuple[str, bytes]]:
    unpacked = lzma.LZMADecompressor(memlimit=1 << 27).decompress(content, max_length=_MOST_CONTENT + 1)
    if len(unpacked) > _MOST_CONTENT:
        raise ValueError(f"they hold more than {_MOST_CONTENT:,} bytes")
    with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as tar:
        for number, about in enumerate(tar):
            plain = about.isreg() and not about.issparse() and 0 <= about.size <= len(unpacked)
            file = tar.extractfile(about) if plain else None
            if file is None or number >= _MOST_FILES:
                raise ValueError(f"{about.name!r} is no regular file, or one too many")
            yield about.name, file.read()


def _evaluation(outcome: Measurement) -> _Evaluation:
    correct, robust = _hex(outcome.correct), _hex(outcome.robust)
    result = outcome.result.model_dump(mode="json")
    return _Evaluation(result=result, correct=correct, robust=robust, sha256=_digest(result, correct, robust))


def _measurement(kept: _Evaluation, what: str) -> Measurement:
    if kept.sha256 != _digest(kept.result, kept.correct, kept.robust):
        raise ValueError(f"{what} was changed after it was kept")
    result = validate(Result, kept.result, what)
    correct, robust = _bits(kept.correct, result.n), _bits(kept.robust, result.n)
    if (int(correct.sum()), int(robust.sum())) != (
        round(result.clean_acc * result.n),
        round(result.robust_acc * result.n),
    ):
        raise ValueError(f"{what} counts other samples than it keeps")
    return Measurement(result, correct, robust)


def _check(result: Result, manifest: Manifest, measure: Measure, images: Dataset, what: str) -> None:
    """That an evaluation is the one that it is kept as: claims compare samples pairwise, so all must be of one set."""
    pairs = {
        "weights": (result.model.sha256, manifest.weights_sha256),
        "images": (result.dataset.sha256, images.sha256),
        "number of images": (result.n, len(images)),
        "suite": (result.suite, measure.suite),
        "norm": (result.threat.norm, measure.threat.norm),
        "radius": (result.threat.rounded, rounded_radius(measure.threat.radius)),
        "BN statistics": (result.model.bn_stats, measure.bn_stats),
    }
    for name, (found, expected) in pairs.items():
        if found != expected:
            raise ValueError(f"{what} is of other {name}: expected {expected}, found {found}")


def _file(measure: Measure) -> str:
    words = f"{measure.suite} {measure.threat.norm} {measure.threat.radius:.9g} {measure.bn_stats}"
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in words) + ".json"


def _hex(bits: Bits) -> str:
    return np.packbits(bits).tobytes().hex()


def _bits(text: str, n: int) -> Bits:
    kept = np.frombuffer(bytes.fromhex(text), np.uint8)
    if len(kept) != -(-n // 8):
        raise ValueError(f"{len(kept)} bytes of verdicts are kept for {n} samples")
    return np.unpackbits(kept, count=n).astype(bool)


def _digest(result: dict[str, Any], correct: str, robust: str) -> str:
    return hashlib.sha256(_json([result, correct, robust])).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
