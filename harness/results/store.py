"""Where results lie: one JSON file an evaluation, verdicts and adversarial examples beside it, nothing overwritten."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.errors import ResultError
from harness.results import _verdict_file
from harness.results._evidence import content_sha256, contradiction, contradiction_of_verdicts
from harness.results._upgrade import upgraded
from harness.results.identity import identified
from harness.results.record import SCHEMA_VERSION, AdversarialRecord, Result, Verdicts
from harness.util.files import write_atomically
from harness.util.reading import parse_json, read_bounded
from harness.util.text import printable
from harness.util.validation import validate

__all__ = [
    "Folder",
    "LeftOut",
    "Survivors",
    "find",
    "find_all",
    "find_same",
    "lies_beside",
    "read",
    "read_all",
    "read_survivors",
    "read_verdicts",
    "safe_name",
    "save",
    "take_in",
]

_VERSION_1 = b'"schema_version": 1,'

_LARGEST = 1 << 22
"""Bytes of a result file; usual ones have a thousandth of it."""

_LONGEST_NAME = 255
"""Characters of a file's name."""

_MOST_HEADER = 1 << 16
"""Bytes of what a file of adversarial examples says of itself."""


class LeftOut(NamedTuple):
    """A result file that is not used, and why."""

    file: str
    reason: str


@dataclass(frozen=True, eq=False)
class Survivors:
    """Which samples are right under every attack of an evaluation.

    Attributes:
        index: ``[n]`` ascending positions in the data set's split.
        robust: bool ``[n]``, in the same order.
    """

    index: np.ndarray[Any, np.dtype[np.int64]]
    robust: np.ndarray[Any, np.dtype[np.bool_]]


class Folder(NamedTuple):
    """The results in a folder, by file name, and the files that are left out."""

    results: list[tuple[Path, Result]]
    left_out: list[LeftOut]


def save(
    result: Result, verdicts: Verdicts, root: Path, *, adversarial: bytes | None = None, force: bool = False
) -> Path:
    """Store a result with its verdicts and adversarial examples under ``root``; returns the JSON file's path.

    The file name carries checkpoint, suite, threat model and a hash of what decides the verdicts. Nothing is
    overwritten: where the same record of the same evaluation is stored already, perhaps by another process meanwhile,
    that one stays and its path is returned. With ``force`` it is stored again beside the first, under the next free
    number.

    Args:
        adversarial: the file that `harness.results.adversarial.pack` makes. None keeps no examples, or those that
            ``result`` names already, which lie under ``root``.

    Raises:
        ResultError: the verdicts do not belong to the result, or the file that is there is damaged.
        StorageError: the folder cannot be written.
    """
    wrong = contradiction(result) or contradiction_of_verdicts(result, verdicts)
    if wrong:
        raise ResultError(f"this result cannot be stored, it contradicts itself or its verdicts: {wrong}")
    return _save_free(result, _verdict_file.packed(verdicts), root, adversarial, force=force)


def take_in(path: Path, root: Path) -> Path:
    """Copy the result file ``path`` with the files beside it into the folder ``root``; returns its path there.

    A result that is there already is not copied again. Where another result of the same evaluation has the names of its
    files, it gets the next free ones, and with them another hash of its content, which names them.

    Raises:
        ResultError: it, or a file that it names, is missing, damaged or changed.
        StorageError: the folder cannot be written.
    """
    result, verdicts = _checked(path)
    examples = _example_content(path, result)
    return find_same(root, result) or _save_free(result, verdicts, root, examples, force=True)


def find_same(root: Path, result: Result) -> Path | None:
    """The file in ``root`` that holds the same record of the same run, whatever its files are called; or None.

    Raises:
        ResultError: a file that is named like it is damaged.
    """
    wanted = _unnamed(result)
    return next((path for path, known in find_all(root, result.evaluation_id) if _unnamed(known) == wanted), None)


def _unnamed(result: Result) -> Result:
    """A result without the names of its files and what follows from them."""
    kept = result.adversarial and result.adversarial.model_copy(update={"file": ""})
    return result.model_copy(update={"samples": None, "content_sha256": None, "adversarial": kept})


def _save_free(result: Result, packed: bytes, root: Path, adversarial: bytes | None, *, force: bool) -> Path:
    """Store a result under the first free name."""
    stem = _stem(result)
    path, number = root / f"{stem}.json", 1
    while path.exists() or not _save_as(path, result, packed, adversarial):
        if not force and _ids(read(path)) == _ids(result):
            break
        number += 1
        path = root / f"{stem}-{number}.json"
    return path


def _save_as(path: Path, result: Result, verdicts: bytes, adversarial: bytes | None) -> bool:
    """Store all files, the result as ``path``; False if another process took that name meanwhile."""
    beside = [_save_beside(path, "npz", verdicts)]
    named: dict[str, object] = {"samples": beside[0].name, "samples_sha256": hashlib.sha256(verdicts).hexdigest()}
    if adversarial is not None:
        beside.append(_save_beside(path, "safetensors", adversarial))
        named["adversarial"] = AdversarialRecord(
            file=beside[1].name,
            sha256=hashlib.sha256(adversarial).hexdigest(),
            samples=round(result.clean_acc * result.n) - round(result.robust_acc * result.n),
        )
    content = result.model_copy(update=named).model_dump(mode="json")
    content["content_sha256"] = content_sha256(content)
    # the JSON comes last: where it exists, the evaluation is complete
    try:
        write_atomically(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode(), replace=False)
    except FileExistsError:
        kept = read(path)
        used = {kept.samples, kept.adversarial.file if kept.adversarial else None}
        for file in beside:
            if file.name not in used:
                file.unlink(missing_ok=True)
        return False
    return True


def _save_beside(path: Path, ending: str, content: bytes) -> Path:
    """Store a file beside the result ``path``; others that lie there may belong to a result in the making."""
    beside, number = path.with_suffix(f".{ending}"), 1
    while True:
        try:
            write_atomically(beside, content, replace=False)
            return beside
        except FileExistsError:
            if beside.stat().st_size == len(content) and beside.read_bytes() == content:
                return beside
        number += 1
        beside = path.with_suffix(f".{number}.{ending}")


def find(root: Path, evaluation_id: str) -> Path | None:
    """The stored result of an evaluation, or None. Of several, the first that was stored."""
    return next((path for path, _ in find_all(root, evaluation_id)), None)


def find_all(root: Path, evaluation_id: str) -> list[tuple[Path, Result]]:
    """The stored records of an evaluation, under all names, in the order they were stored in.

    Raises:
        ResultError: a file that is named like one of them is damaged.
    """
    named = root.glob(f"*__{safe_name(evaluation_id[:12])}*.json")
    found = [(path, read(path)) for path in sorted(named, key=lambda path: (len(path.name), path.name))]
    found = [(path, result) for path, result in found if result.evaluation_id == evaluation_id]
    # files of version 1 are named by a hash that was made otherwise
    return found or [(path, result) for path, result in _older(root) if result.evaluation_id == evaluation_id]


def _older(root: Path) -> Iterator[tuple[Path, Result]]:
    for path in sorted(path for path in root.glob("*.json") if path.is_file()):
        # a file that cannot be read is no reason not to run an evaluation that may be another one
        with suppress(OSError, ResultError):
            with path.open("rb") as file:
                older = _VERSION_1 in file.read(64)
            if older:
                yield path, read(path)


def _ids(result: Result) -> tuple[str, str]:
    return result.evaluation_id, result.record_id


def read(path: Path) -> Result:
    """A result file, checked against itself and against its verdicts.

    Raises:
        ResultError: it or its verdicts are missing, damaged, changed, of another schema version, or no result.
    """
    return _checked(path)[0]


def read_verdicts(path: Path) -> Verdicts:
    """The per-sample verdicts of the result file ``path``.

    Raises:
        ResultError: as `read`.
    """
    result, content = _checked(path)
    return _unpacked(path, result, content)


def read_survivors(root: Path, result: Result) -> Survivors:
    """The samples that survive in a result that was read from the folder ``root``; faster than all its verdicts.

    Raises:
        ResultError: its verdicts are missing, damaged, or not those of the result.
    """
    path = root / (result.samples or "")
    content = _verdict_content(path, result)
    try:
        found = _verdict_file.arrays(content, result.n, ("index", "robust"))
    except ValueError as error:
        raise ResultError(f"the verdicts {path} are damaged: {error}") from error
    if int(found["robust"].sum()) != round(result.robust_acc * result.n):
        raise ResultError(f"the verdicts {path} are not those of the result of {result.label}")
    order = np.argsort(found["index"], kind="stable")
    return Survivors(found["index"][order], found["robust"][order])


def read_all(root: Path) -> Folder:
    """All result files in a folder; one that is damaged or changed is left out.

    Raises:
        ResultError: there is no such folder.
    """
    if not root.is_dir():
        raise ResultError(f"no results folder {root}: run 'harness evaluate' or name one with --results")
    results, left_out = [], []
    for path in sorted(root.glob("*.json")):
        if not path.name.startswith("."):
            try:
                results.append((path, read(path)))
            except ResultError as error:
                left_out.append(LeftOut(path.name, str(error).replace(str(path), path.name)))
    return Folder(results, left_out)


def _checked(path: Path) -> tuple[Result, bytes]:
    """A result and the content of its verdict file."""
    try:
        content = parse_json(read_bounded(path, _LARGEST))
    except OSError as error:
        raise ResultError(f"cannot read the result {path}: {error.strerror}") from error
    except ValueError as error:
        raise ResultError(f"the result {path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ResultError(f"{path} is not a result: expected a JSON object, got {type(content).__name__}")
    version = content.get("schema_version")
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise ResultError(
            f"the result {path} has schema version {version!r}; this harness reads versions 1 to {SCHEMA_VERSION}"
        )
    result = validate(Result, upgraded(content), f"the result {path} is damaged", raises=ResultError, strict=True)
    hashed = version == SCHEMA_VERSION
    # version 1 had no hash, and a file that has one was not written as version 1
    if result.content_sha256 != (content_sha256(content) if hashed else None):
        raise ResultError(f"the result {path} was changed after it was written: its content does not have its hash")
    wrong = contradiction(result)
    if wrong:
        raise ResultError(f"the result {path} contradicts itself: {wrong}")
    verdicts = _verdict_content(path, result)
    if not hashed:
        _unpacked(path, result, verdicts)
    elif hashlib.sha256(verdicts).hexdigest() != result.samples_sha256:
        raise ResultError(f"the verdicts {result.samples} of the result {path} were changed after they were written")
    return result if hashed else identified(result), verdicts


def lies_beside(name: str) -> bool:
    """Whether what a result calls a file can be one beside it: no path, and nothing that no name holds."""
    return bool(name) and Path(name).name == name == printable(name, longest=_LONGEST_NAME)


def _verdict_content(path: Path, result: Result) -> bytes:
    name = result.samples or ""
    if not lies_beside(name):
        raise ResultError(f"the result {path} names no verdicts beside it, got {printable(name)!r}")
    try:
        return read_bounded(path.with_name(name), _verdict_file.largest(result.n))
    except OSError as error:
        raise ResultError(
            f"cannot read the verdicts {result.samples} of the result {path}: {error.strerror}"
        ) from error
    except ValueError as error:
        raise ResultError(f"the verdicts {result.samples} of the result {path} are damaged: {error}") from error


def _example_content(path: Path, result: Result) -> bytes | None:
    """The file of adversarial examples that a result names, unchanged; None where it names none."""
    kept = result.adversarial
    if kept is None:
        return None
    if Path(kept.file).name != kept.file:
        raise ResultError(f"the result {path} names a file in another folder, got {kept.file!r}")
    most = result.n * (8 * math.prod(result.dataset.shape) + 16) + _MOST_HEADER
    try:
        content = read_bounded(path.with_name(kept.file), most)
    except OSError as error:
        raise ResultError(
            f"cannot read the adversarial examples {kept.file} of the result {path}: {error.strerror}"
        ) from error
    except ValueError as error:
        raise ResultError(f"the adversarial examples {kept.file} of the result {path} are damaged: {error}") from error
    if hashlib.sha256(content).hexdigest() != kept.sha256:
        raise ResultError(
            f"the adversarial examples {kept.file} of the result {path} were changed after they were written"
        )
    return content


def _unpacked(path: Path, result: Result, content: bytes) -> Verdicts:
    try:
        verdicts = _verdict_file.unpacked(content, result.n)
    except ValueError as error:
        raise ResultError(f"the verdicts {result.samples} of the result {path} are damaged: {error}") from error
    wrong = contradiction_of_verdicts(result, verdicts)
    if wrong:
        raise ResultError(f"the result {path} contradicts its verdicts {result.samples}: {wrong}")
    return verdicts


def _stem(result: Result) -> str:
    threat = f"{result.threat.norm}-{result.threat.eps.replace('/', '-')}"
    parts = (result.checkpoint, result.suite, threat, result.evaluation_id[:12])
    return "__".join(safe_name(part) for part in parts)


def safe_name(text: str) -> str:
    """A text as a part of a file's name."""
    # no separators, no leading dots, no control characters; long names would not fit into a file name
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).lstrip(".-")[:80] or "unnamed"
