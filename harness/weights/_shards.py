"""Weights that lie in several files of one folder, as large models are published."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import CheckpointError
from harness.util.text import printable
from harness.weights._file import LARGEST, WeightsFile, open_regular, open_weights
from harness.weights._opcodes import Unpickled
from harness.weights._values import Storage, StoredTensor

__all__ = ["open_weights_or_shards", "source_sha256", "weights_files"]

_INDEX = ".index.json"
_LARGEST_INDEX = 10 << 20
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".th")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.\w+")
_MOST = 1000


class _Shards:
    """Several opened files as one source; a storage's key begins with the number of its file."""

    def __init__(self, files: Sequence[WeightsFile]) -> None:
        self._files = files
        tensors: dict[str, Any] = {}
        repeated: list[str] = []
        for number, file in enumerate(files):
            held = file.value if isinstance(file.value, dict) else {}
            for name, value in held.items():
                if isinstance(value, StoredTensor):
                    repeated += [name] * (name in tensors)
                    key = f"{number}:{value.storage.key}"
                    tensors[name] = replace(value, storage=replace(value.storage, key=key))
        objects = tuple(dict.fromkeys(name for file in files for name in file.objects))
        self.content = Unpickled(tensors, tuple(repeated), objects, {})

    def read(self, storage: Storage, start: int, stop: int) -> bytearray:
        """As one file reads."""
        number, _, key = storage.key.partition(":")
        return self._files[int(number)].source.read(replace(storage, key=key), start, stop)


@contextmanager
def open_weights_or_shards(path: Path) -> Iterator[WeightsFile]:
    """As `open_weights`, also of a folder or index of several files (`weights_files`)."""
    files = weights_files(path)
    with ExitStack() as stack:
        opened = [stack.enter_context(open_weights(file)) for file in files]
        if len(opened) == 1:
            yield opened[0]
            return
        shards = _Shards(opened)
        if shards.content.repeated:
            named = printable(shards.content.repeated[0])
            raise CheckpointError(f"{path} holds the same name twice ({named}), so what it means is not certain")
        yield WeightsFile(path, shards, {})


def weights_files(path: Path) -> list[Path]:
    """The files that ``path`` means: a file itself, the files that an index names, or those of a folder.

    Raises:
        CheckpointError: there is nothing there, the index is damaged or names files elsewhere, or a folder holds
            several files that do not belong together.
    """
    if path.name.endswith(_INDEX):
        return _indexed(path)
    if not path.is_dir():
        if not path.exists():
            raise CheckpointError(f"no such file: {path}")
        return [path]
    indices = sorted(path.glob(f"*{_INDEX}"))
    if len(indices) == 1:
        return _indexed(indices[0])
    found = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
    shards = [match for file in found if (match := _SHARD.search(file.name))]
    whole = shards and len(shards) == len(found) == int(shards[0][2]) and len({match[2] for match in shards}) == 1
    if len(found) == 1 or whole:
        return found
    named = ", ".join(printable(file.name) for file in found[:4]) or "none"
    raise CheckpointError(f"the folder {path} should hold one file of weights or all parts of one, it holds {named}")


def source_sha256(path: Path) -> str:
    """SHA-256 of a file; of several, of the list of their hashes and names."""
    hashes = {}
    for file in weights_files(path):
        with open_regular(file, largest=LARGEST) as (stream, _):
            hashes[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    listed = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(hashes.items()))
    return hashlib.sha256(listed.encode()).hexdigest()


def _indexed(path: Path) -> list[Path]:
    with open_regular(path, largest=_LARGEST_INDEX) as (stream, _):
        try:
            held = json.loads(stream.read())
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"the index {path} is not valid JSON") from error
    table = held.get("weight_map") if isinstance(held, dict) else None
    if not isinstance(table, Mapping) or not table or not all(isinstance(name, str) for name in table.values()):
        raise CheckpointError(f"the index {path} has no table 'weight_map' of tensors and files")
    names = sorted(set(table.values()))
    for name in names[:_MOST]:
        if Path(name).name != name or not (path.parent / name).is_file():
            raise CheckpointError(f"the index {path} names the file {printable(name)!r}, which is not beside it")
    if len(names) > _MOST:
        raise CheckpointError(f"the index {path} names {len(names)} files, more than the {_MOST} that are read")
    return [path.parent / name for name in names]
