"""Where results lie: one JSON file an evaluation, its per-sample verdicts beside it, nothing overwritten."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from harness.errors import HarnessError, ResultError
from harness.results._upgrade import upgraded
from harness.results.record import SCHEMA_VERSION, Result, Verdicts
from harness.util.files import write_atomically

__all__ = [
    "find",
    "read",
    "read_all",
    "read_verdicts",
    "save",
]


def save(result: Result, verdicts: Verdicts, root: Path, *, force: bool = False) -> Path:
    """Store a result and its verdicts under ``root``; returns the JSON file's path.

    The file name carries checkpoint, suite, threat model and a hash of all inputs. Nothing is overwritten:
    where the same evaluation is stored already, perhaps by another process meanwhile, that one stays and its
    path is returned. With ``force`` it is stored again beside the first, under the next free number.

    Raises:
        ResultError: the verdicts do not belong to the result, or the file that is there is damaged.
        StorageError: the folder cannot be written.
    """
    if len(verdicts) != result.n or int(verdicts.robust.sum()) != round(result.robust_acc * result.n):
        raise ResultError(
            f"the verdicts do not belong to this result: {len(verdicts)} samples, "
            f"{int(verdicts.robust.sum())} robust; n = {result.n}, robust_acc = {result.robust_acc}"
        )
    stem = _stem(result)
    packed = io.BytesIO()
    np.savez_compressed(packed, **_arrays(verdicts))
    path, number = root / f"{stem}.json", 1
    while path.exists() or not _save_as(path, result, packed.getvalue()):
        if not force and read(path).evaluation_id == result.evaluation_id:
            break
        number += 1
        path = root / f"{stem}-{number}.json"
    return path


def _save_as(path: Path, result: Result, verdicts: bytes) -> bool:
    """Store both files, the result as ``path``; False if another process took that name meanwhile."""
    beside = _save_verdicts(path, verdicts)
    content = result.model_copy(update={"samples": beside.name}).model_dump_json(indent=2) + "\n"
    # the JSON comes last: where it exists, the evaluation is complete
    try:
        write_atomically(path, content.encode(), replace=False)
    except FileExistsError:
        if read(path).samples != beside.name:
            beside.unlink(missing_ok=True)
        return False
    return True


def _save_verdicts(path: Path, verdicts: bytes) -> Path:
    """Store verdicts beside the result ``path``; others that lie there may belong to a result in the making."""
    beside, number = path.with_suffix(".npz"), 1
    while True:
        try:
            write_atomically(beside, verdicts, replace=False)
            return beside
        except FileExistsError:
            if beside.read_bytes() == verdicts:
                return beside
        number += 1
        beside = path.with_suffix(f".{number}.npz")


def find(root: Path, evaluation_id: str) -> Path | None:
    """The stored result of an evaluation, or None. Of several, the first that was stored."""
    candidates = root.glob(f"*__{_safe(evaluation_id[:12])}*.json")
    for path in sorted(candidates, key=lambda path: (len(path.name), path.name)):
        if read(path).evaluation_id == evaluation_id:
            return path
    return None


def read(path: Path) -> Result:
    """A result file.

    Raises:
        ResultError: it is missing, damaged, of another schema version or not a result.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ResultError(f"cannot read the result {path}: {error.strerror}") from error
    except ValueError as error:
        raise ResultError(f"the result {path} is damaged: it is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ResultError(f"{path} is not a result: expected a JSON object, got {type(content).__name__}")
    version = content.get("schema_version")
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise ResultError(
            f"the result {path} has schema version {version!r}; this harness reads versions 1 to {SCHEMA_VERSION}"
        )
    try:
        return Result.model_validate(upgraded(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ResultError(f"the result {path} is damaged: {where}: {first['msg']}") from error


def read_all(root: Path) -> list[tuple[Path, Result]]:
    """All result files in a folder, by file name.

    Raises:
        ResultError: there is no such folder, or a file in it cannot be read (the error names it).
    """
    if not root.is_dir():
        raise ResultError(f"no results folder {root}: run 'harness evaluate' or name one with --results")
    return [(path, read(path)) for path in sorted(root.glob("*.json")) if not path.name.startswith(".")]


def read_verdicts(path: Path) -> Verdicts:
    """The per-sample verdicts of the result file ``path``.

    Raises:
        ResultError: the result names none, or they are missing, damaged or of another evaluation.
    """
    result = read(path)
    if result.samples is None or Path(result.samples).name != result.samples:
        raise ResultError(f"the result {path} names no verdicts beside it, got {result.samples!r}")
    beside = path.with_name(result.samples)
    try:
        with np.load(beside, allow_pickle=False) as arrays:
            verdicts = Verdicts(**{name: arrays[name] for name in arrays.files})
    except OSError as error:
        raise ResultError(f"cannot read the verdicts {beside}: {error.strerror or error}") from error
    except (HarnessError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ResultError(f"the verdicts {beside} are damaged: {error}") from error
    if len(verdicts) != result.n:
        raise ResultError(f"the verdicts {beside} hold {len(verdicts)} samples, the result n = {result.n}")
    return verdicts


def _arrays(verdicts: Verdicts) -> dict[str, Any]:
    cast: dict[str, Callable[[Any], Any]] = {"robust": lambda array: array.astype(np.bool_)}
    return {
        name: cast.get(name, lambda array: array.astype("<i8"))(np.asarray(array))
        for name, array in verdicts.arrays().items()
    }


def _stem(result: Result) -> str:
    threat = f"{result.threat.norm}-{result.threat.eps.replace('/', '-')}"
    parts = (result.checkpoint, result.suite, threat, result.evaluation_id[:12])
    return "__".join(_safe(part) for part in parts)


def _safe(text: str) -> str:
    # no separators, no leading dots, no control characters; long names would not fit into a file name
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).lstrip(".-")[:80] or "unnamed"
