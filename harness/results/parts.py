"""Parts of an evaluation that was cut into shards: which samples are whose, and the file that a shard leaves.

A part is one file in the safetensors format, which carries no code: the record of its samples, their verdicts, and the
adversarial examples. It appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from harness.audit.trials import Trial
from harness.errors import InvalidInput, ResultError
from harness.results._evidence import contradiction, contradiction_of_verdicts
from harness.results.record import Result, Verdicts
from harness.util.files import write_atomically
from harness.util.reading import open_bounded, parse_json
from harness.util.text import printable
from harness.util.validation import Record, validate

__all__ = ["FOLDER", "Part", "PartRecord", "Selection", "Shard", "folder_of", "path_of", "read", "save"]

FOLDER = "shards"
"""Where parts lie, under the folder of the results."""

_VERSION = "2"
_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
_LARGEST = 16 << 30
# a record has a few thousand characters
_MOST_HEADER = 1 << 20

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Shard:
    """One of ``count`` equal parts of the samples: every ``count``-th sample, from sample ``number - 1`` on."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str]) -> Shard:
        """A shard as it is written, such as ``3/16``; ``auto`` asks the environment.

        There a Slurm array says it (``SLURM_ARRAY_TASK_ID``, ``_COUNT``, ``_MIN``, ``_STEP``), or else a launcher of
        processes such as torchrun (``RANK``, ``WORLD_SIZE``).

        Raises:
            InvalidInput: it is neither, or not one of the parts.
        """
        if text == "auto":
            number, count = _from(environment)
        else:
            match = _SHARD.fullmatch(text)
            if match is None:
                raise InvalidInput(f"a shard is written as 3/16 or auto, got {text!r}")
            number, count = int(match[1]), int(match[2])
        if not 1 <= number <= count:
            raise InvalidInput(f"the shards of {count} are 1/{count} to {count}/{count}, got {number}/{count}")
        return cls(number, count)

    def rows(self, n: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Positions of its samples among ``n``.

        Raises:
            InvalidInput: there are fewer samples than shards.
        """
        if n < self.count:
            raise InvalidInput(f"{n} samples cannot be cut into {self.count} shards: take at most {n}")
        return np.arange(self.number - 1, n, self.count, dtype=np.int64)

    @property
    def label(self) -> str:
        """What it is called in the name of a file."""
        return f"{self.number}of{self.count}"

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclass(frozen=True, eq=False)
class Selection:
    """Some of the samples.

    Attributes:
        positions: int64 ``[m]`` among all samples. label: what it is called in the name of a file.
    """

    positions: np.ndarray[Any, np.dtype[np.int64]]
    label: str

    def rows(self, n: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Positions of its samples among ``n``."""
        return self.positions


class PartRecord(Record):
    """What a part says of itself.

    Attributes:
        total: samples of the whole evaluation. gradient_free: names of its steps that make no backward passes.
        trials: what indicators of attack failure found out of some of its samples.
        result: of the part's samples alone; ids, model and data set are those of the whole.
    """

    number: int = Field(ge=1)
    count: int = Field(ge=1)
    total: int = Field(ge=1)
    gradient_free: list[str]
    trials: list[Trial] = Field(max_length=1000)
    result: Result

    @property
    def shard(self) -> Shard:
        return Shard(self.number, self.count)


@dataclass(frozen=True, eq=False)
class Part:
    """What a shard has found.

    Attributes:
        points: ``[m, ...]`` the adversarial examples of those samples that a step broke, in the order of the verdicts.
    """

    record: PartRecord
    verdicts: Verdicts
    points: Array

    @property
    def rows(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Positions of its samples in the whole evaluation."""
        return self.record.shard.rows(self.record.total)


def folder_of(root: Path, evaluation_id: str) -> Path:
    """Where the parts of an evaluation lie under the folder of the results."""
    return root / FOLDER / evaluation_id[:12]


def path_of(root: Path, evaluation_id: str, shard: Shard) -> Path:
    """The file of one part."""
    return folder_of(root, evaluation_id) / _name_of(shard)


def save(part: Part, root: Path, *, replace: bool = False) -> Path:
    """Store a part under the folder of the results; one that is there stays, unless it is to be replaced.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = path_of(root, part.record.result.evaluation_id, part.record.shard)
    tensors = {**part.verdicts.arrays(), "points": np.ascontiguousarray(part.points)}
    record = part.record.model_dump_json()
    header = {
        "format": "robust-harness part",
        "version": _VERSION,
        "record": record,
        "sha256": _sha256(record, tensors),
    }
    try:
        write_atomically(path, to_bytes(tensors, header), replace=replace)
    except FileExistsError:
        read(path)  # the other one must be sound
    return path


def read(path: Path) -> Part:
    """The part in a file, checked against its hash and against itself.

    Raises:
        ResultError: it is missing, damaged or changed, contradicts itself, or has the name of another shard.
    """
    try:
        with open_bounded(path, _LARGEST) as (stream, _):
            if int.from_bytes(stream.read(8), "little") > _MOST_HEADER:
                raise ValueError("its header is too long")
        with safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
        if header.get("version") != _VERSION:
            raise ValueError(f"expected version {_VERSION}, got {header.get('version')!r}")
        table = parse_json(header["record"].encode())
        points = tensors.pop("points")
        verdicts = Verdicts(**tensors)
    except FileNotFoundError as error:
        raise ResultError(f"the part {path} is missing") from error
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, InvalidInput) as error:
        raise ResultError(f"the part {path} is damaged: {printable(error, longest=300)}") from error
    if header.get("sha256") != _sha256(header["record"], {**tensors, "points": points}):
        raise ResultError(f"the part {path} was changed after it was written: its content does not have its hash")
    record = validate(PartRecord, table, f"the part {path} is damaged", raises=ResultError)
    part = Part(record, verdicts, points)
    wrong = _contradiction(part)
    if wrong:
        raise ResultError(f"the part {path} contradicts itself: {wrong}")
    if path.name != _name_of(record.shard):
        raise ResultError(f"the part {path} holds shard {record.shard} and has the name of another: remove it")
    return part


def _name_of(shard: Shard) -> str:
    return f"part-{shard.number:0{len(str(shard.count))}}-of-{shard.count}.safetensors"


def _contradiction(part: Part) -> str | None:
    result, verdicts = part.record.result, part.verdicts
    if any(array.dtype.kind not in "biu" for array in verdicts.arrays().values()):
        return "its verdicts are no whole numbers"
    wrong = contradiction(result) or contradiction_of_verdicts(result, verdicts)
    if wrong:
        return wrong
    shard, total = part.record.shard, part.record.total
    # counted without listing them: a file can say any number
    if not shard.number <= shard.count <= total or len(range(shard.number - 1, total, shard.count)) != len(verdicts):
        return f"it holds {len(verdicts)} samples, which is not shard {shard} of {total}"
    if len(part.points) != int((verdicts.broken_by >= 0).sum()):
        return f"it holds {len(part.points)} adversarial examples for other than so many broken samples"
    return None


def _sha256(record: str, tensors: Mapping[str, Array]) -> str:
    digest = hashlib.sha256(record.encode())
    for name, array in sorted(tensors.items()):
        digest.update(json.dumps([name, str(array.dtype), list(array.shape)]).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _from(environment: Mapping[str, str]) -> tuple[int, int]:
    def whole(name: str, default: int | None = None) -> int:
        text = environment.get(name, "" if default is None else str(default))
        if not re.fullmatch("[0-9]{1,9}", text):
            raise InvalidInput(f"--shard auto needs a whole number in the environment variable {name}, got {text!r}")
        return int(text)

    if "SLURM_ARRAY_TASK_ID" in environment:
        position = whole("SLURM_ARRAY_TASK_ID") - whole("SLURM_ARRAY_TASK_MIN")
        return position // max(1, whole("SLURM_ARRAY_TASK_STEP", 1)) + 1, whole("SLURM_ARRAY_TASK_COUNT")
    if "RANK" in environment:
        return whole("RANK") + 1, whole("WORLD_SIZE")
    raise InvalidInput(
        "--shard auto needs a Slurm array (SLURM_ARRAY_TASK_ID) or a launcher (RANK and WORLD_SIZE); neither is set in "
        "the environment: say which shard, such as --shard 3/16"
    )
