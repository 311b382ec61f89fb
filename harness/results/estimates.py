"""Estimates of what a suite would find, as files of their own kind: no leaderboard ranks them.

An estimate is a JSON file in the folder ``estimates`` under the results, with what it knows of every sample beside it,
so that it can be continued: to a narrower interval, or to the last sample, where it is no estimate any more.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from harness.audit.flags import Flag
from harness.errors import ResultError
from harness.results._evidence import content_sha256
from harness.results.record import DatasetRecord, Environment, ModelRecord, ThreatRecord
from harness.util.arrays import read_arrays
from harness.util.files import write_together
from harness.util.reading import parse_json, read_bounded
from harness.util.text import printable
from harness.util.validation import Record, validate

__all__ = ["FOLDER", "EstimateRecord", "Seen", "path_of", "read", "save"]

FOLDER = "estimates"

_LARGEST = 1 << 22


class EstimateRecord(Record):
    """What a suite would find on these samples, as far as some of them say. Accuracies are fractions."""

    kind: Literal["estimate"] = "estimate"
    version: Literal[1] = 1
    checkpoint: str
    model: ModelRecord
    dataset: DatasetRecord
    threat: ThreatRecord
    suite: str
    seed: int
    n: int = Field(ge=1)
    clean_acc: float = Field(ge=0, le=1)
    robust_acc: float = Field(ge=0, le=1, description="the estimate, inside the interval")
    low: float = Field(ge=0, le=1, description="the suite's robust accuracy is at least this")
    high: float = Field(ge=0, le=1, description="and at most this, with the confidence")
    confidence: float = Field(gt=0, lt=1, description="of low and high, however often they were looked at")
    opening_acc: float = Field(ge=0, le=1, description="robust accuracy after the opening")
    survivors: int = Field(ge=0, description="of the opening")
    census: int = Field(ge=0, description="of them, attacked for their small margin")
    attacked: int = Field(ge=0, description="of the survivors, by the whole suite, the census included")
    broken: int = Field(ge=0, description="of the attacked")
    forward: int = Field(ge=0, description="passes in all")
    backward: int = Field(ge=0)
    flags: list[Flag]
    environment: Environment
    evaluation_id: str = Field(description="of the evaluation that is estimated")
    recorded: str
    seconds: float
    samples_sha256: str = Field(default="", description="hash of the file beside it")
    content_sha256: str = Field(default="", description="hash of all other fields")
    harness_version: str

    @property
    def complete(self) -> bool:
        """Whether every survivor was attacked, so that the figure is the suite's own."""
        return self.attacked == self.survivors


@dataclass(frozen=True, eq=False)
class Seen:
    """What is known of the samples.

    Attributes:
        alive: bool ``[n]``, after the opening. order: int64 ``[s]``, the positions of those that are, in the order in
            which they are attacked. broken: bool ``[m]``, of the first of these.
    """

    alive: np.ndarray[Any, np.dtype[np.bool_]]
    order: np.ndarray[Any, np.dtype[np.int64]]
    broken: np.ndarray[Any, np.dtype[np.bool_]]


def path_of(root: Path, evaluation_id: str) -> Path:
    """The file of an estimate under the folder of the results."""
    return root / FOLDER / f"{evaluation_id[:12]}.json"


def save(record: EstimateRecord, seen: Seen, root: Path) -> Path:
    """Store an estimate in the place of the one before it; returns the JSON file's path.

    Raises:
        StorageError: the folder cannot be written.
    """
    stream = io.BytesIO()
    np.savez_compressed(stream, **{field.name: getattr(seen, field.name) for field in fields(seen)})
    samples = stream.getvalue()
    named = record.model_copy(update={"samples_sha256": hashlib.sha256(samples).hexdigest()})
    content = named.model_dump(mode="json")
    content["content_sha256"] = content_sha256(content)
    path = path_of(root, record.evaluation_id)
    text = (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
    write_together({path.with_suffix(".npz"): samples, path: text})
    return path


def read(path: Path) -> tuple[EstimateRecord, Seen]:
    """An estimate and what it knows of the samples.

    Raises:
        ResultError: a file is missing, damaged or was changed.
    """
    try:
        content = parse_json(read_bounded(path, _LARGEST))
        record = validate(EstimateRecord, content, f"the estimate {path} is damaged", raises=ResultError, strict=True)
        samples = read_bounded(path.with_suffix(".npz"), 64 * (record.n + 1024))
        arrays, _ = read_arrays(io.BytesIO(samples), ("alive", "order", "broken"))
        seen = Seen(arrays["alive"], arrays["order"], arrays["broken"])
    except OSError as error:
        raise ResultError(f"cannot read the estimate {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ResultError(f"the estimate {path} is damaged: {printable(error, longest=300)}") from error
    hashed = content_sha256(content), hashlib.sha256(samples).hexdigest()
    counted = len(seen.alive), len(seen.order), len(seen.broken), int(seen.broken.sum())
    told = record.n, record.survivors, record.attacked, record.broken
    if (record.content_sha256, record.samples_sha256) != hashed or counted != told:
        raise ResultError(f"the estimate {path} was changed after it was written: remove it to begin anew")
    return record, seen
