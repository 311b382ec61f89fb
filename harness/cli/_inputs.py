"""What decides how an evaluation is known, as one hash that is found without torch.

The hashes of an evaluation and of its record follow from what was asked for, this package, and the content of some
files. Where all of these are as they were, so are the hashes, and a receipt (`harness.results.receipts`) has them: they
are computed by one function only, that of a plan, and never here.

A changed file is always noticed, because no date or size stands for a content: every file is read and hashed each time.
A file that comes to lie in front of another is noticed, because names are looked up each time. What is not known to
depend on listed files alone is planned each time: code in files of the user's own other than an architecture, plug-ins
of other packages, networks that bring their weights, BN statistics that are estimated, audit checks that are added.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.checkpoints import Manifest, find, manifest_path, parent_paths, read_manifest, runnable
from harness.errors import HarnessError
from harness.results import receipts
from harness.results.found import Stored, latest
from harness.util.reading import open_bounded, read_toml
from harness.util.source_text import source_files
from harness.util.user_file import is_in_file

if TYPE_CHECKING:
    from harness.cli._evaluation import Request

__all__ = ["Inputs", "found", "inputs_of", "remember"]

_MOST = 1 << 28
"""Bytes of all files together; of more the plan is made, which reads no more of them than it needs."""

_MOST_FILES = 20_000
_PACKAGE = Path(__file__).resolve().parents[1]
_NOT_INPUTS = frozenset(("root", "force", "adversarial", "tracker"))
"""Fields of a request that say where results are and how they are shown."""

_SETTLED = 2.0
"""Seconds after which a file that is changed again has another time of change on every file system."""


@dataclass(frozen=True)
class Inputs:
    """All that an evaluation's hashes follow from.

    Attributes:
        sha256: of the contents. state: which files they are, and when each was changed last.
        checkpoint: its name in the manifest. weights: hash of the weights file.
    """

    sha256: str
    state: str
    checkpoint: str
    weights: str


def inputs_of(name: str, request: Request) -> Inputs | None:
    """The inputs of a request for a checkpoint; None where they cannot be listed, or something is wrong with them."""
    try:
        return _inputs(name, request)
    except (HarnessError, OSError, ValueError, _Unknown):
        return None  # whoever plans it says what is wrong


def found(inputs: Inputs | None, root: Path) -> Stored | None:
    """The stored result of an evaluation whose inputs are as they were when it was planned last.

    The record must name the weights file as it is, and be the one that a plan would take.
    """
    known = receipts.recall(inputs.sha256) if inputs is not None else None
    if inputs is None or known is None:
        return None
    evaluation_id, record_id = known
    try:
        stored = latest(root, evaluation_id, inputs.checkpoint)
    except HarnessError:
        return None
    if stored is None or (stored.result.record_id, stored.result.model.file_sha256) != (record_id, inputs.weights):
        return None
    return stored


def remember(before: Inputs | None, name: str, request: Request, stored: Stored) -> None:
    """Keep the hashes of an evaluation that was planned.

    Args:
        before: its inputs before anything of them was read for the plan. Those of now must be the same files under the
            same links, unchanged in between, not even to and fro: so that what was planned is what was hashed.
    """
    if before is not None and before == inputs_of(name, request):
        receipts.remember(before.sha256, stored.result.evaluation_id, stored.result.record_id)


class _Unknown(Exception):
    """The inputs cannot be listed."""


def _inputs(name: str, request: Request) -> Inputs:
    from harness import datasets, models
    from harness.util import plugins

    asked = {one.name: str(getattr(request, one.name)) for one in fields(request) if one.name not in _NOT_INPUTS}
    if models.is_complete(name) or request.checks or request.bn_stats != "stored" or request.eps_units != "pixel":
        raise _Unknown
    installed = _installed()
    if _plugged(plugins.any_installed, json.dumps(installed), tuple(sys.path)):
        raise _Unknown
    files = _Files()
    path = find(name, request.checkpoint_dir)
    manifest, code, weights = _described(path, files)
    codes = [code]
    wanted = request.dataset or manifest.dataset
    _refuse_code(request.norm, request.suite, wanted, (manifest.threat or "").rpartition(":")[0])
    data = datasets.files(str(wanted), split=request.split, data_dir=request.data_dir)
    if wanted is None or data is None:
        raise _Unknown
    for parent in parent_paths(path, manifest.parent.name, request.checkpoint_dir) if manifest.parent else ():
        codes.append(_described(parent, files)[1])
    files.add_all(data)
    if request.suite.endswith(".toml"):
        files.add(Path(request.suite))
        _refuse_code(*_texts(read_toml(Path(request.suite))))
    content = {
        "asked": [name, asked, str(Path.cwd())],
        "code": codes,
        "files": files.hashes,
        "package": _package(),
        "python": [sys.version, *_sources(), *installed],
    }
    sha256 = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Inputs(sha256, json.dumps(files.states), manifest.name, weights)


def _refuse_code(*names: str | None) -> None:
    if any(name is not None and is_in_file(name) for name in names):
        raise _Unknown


def _described(path: Path, files: _Files) -> tuple[Manifest, str, str]:
    """A checkpoint's manifest, its architecture as it can be built here, and the hash of its weights file.

    An architecture in a file of the user's own, with all that it imports, is checked as it is before it is run.
    """
    if path.is_symlink():
        raise _Unknown
    weights = files.add(path)
    files.add(manifest_path(path))
    manifest = read_manifest(manifest_path(path))
    _refuse_code(manifest.norm_layer, manifest.regime)
    architecture = runnable(manifest, path)
    if is_in_file(architecture):
        for source in source_files(Path(architecture.rpartition(":")[0])):
            files.add(source)
    elif (graph := Path(architecture.partition(":")[2]).expanduser()).is_file():
        files.add(graph)
    return manifest, architecture, weights


@dataclass
class _Files:
    """Files by path: the hash of each, and what changes whenever one is written."""

    hashes: dict[str, str] = field(default_factory=dict)
    states: dict[str, list[int]] = field(default_factory=dict)
    size: int = 0

    def add(self, path: Path) -> str:
        """Hash a file."""
        about = path.stat()
        self.size += about.st_size
        if self.size > _MOST or len(self.hashes) >= _MOST_FILES:
            raise _Unknown
        where, state = str(path.absolute()), _state(about)
        self.states[where] = state
        self._note_links(path.absolute())
        self.hashes[where] = _sha256(path, tuple(state))
        return self.hashes[where]

    def _note_links(self, path: Path) -> None:
        """What changes where a link on the way to a file is exchanged, or a folder is by another."""
        for step in (path, *path.parents):
            if step.is_symlink():
                self.states[f"link {step}"] = _state(step.lstat())
            folder = f"folder {step}"
            if step == path:
                continue
            if folder in self.states:
                break
            about = step.stat()
            self.states[folder] = [about.st_dev, about.st_ino]

    def add_all(self, paths: Iterable[Path]) -> None:
        """Hash files, and all that lies in folders."""
        for path in paths:
            for one in _below(path):
                if one.is_dir():
                    self.hashes[str(one.absolute())] = "folder"
                else:
                    self.add(one)


def _below(path: Path) -> Iterator[Path]:
    yield path
    for folder, folders, names in os.walk(path, followlinks=True):
        yield from (Path(folder, name) for name in sorted((*folders, *names)))


def _state(about: os.stat_result) -> list[int]:
    return [about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns]


_hashed: dict[tuple[str, tuple[int, ...]], str] = {}
"""Of files that were hashed in this process: many checkpoints have the same images."""


def _sha256(path: Path, state: tuple[int, ...]) -> str:
    key = (str(path.absolute()), state)
    if key not in _hashed:
        with open_bounded(path, _MOST) as (stream, _):
            now = time.time()
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        if now - state[-1] / 1e9 < _SETTLED:  # it may be changed again without a sign
            return sha256
        _hashed[key] = sha256
    return _hashed[key]


def _package() -> str:
    """Hash of this package's sources."""
    files = sorted(_PACKAGE.rglob("*.py"))
    return _package_sha256(tuple((str(path), *_state(path.stat())) for path in files))


@lru_cache(maxsize=1)
def _package_sha256(files: tuple[tuple[Any, ...], ...]) -> str:
    digest = hashlib.sha256()
    for path, *_ in files:
        digest.update(hashlib.sha256(Path(path).read_bytes()).digest() + str(path).encode())
    return digest.hexdigest()


@lru_cache(maxsize=8)
def _plugged(any_installed: Callable[[], bool], installed: str, searched: tuple[str, ...]) -> bool:
    """Whether an installed package brings members, which is asked again only where other packages are found."""
    return any_installed()


def _texts(value: object) -> Iterator[str]:
    """All texts in what a TOML file holds."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _sources() -> list[list[Any]]:
    """Where the packages lie that read images and make passes, and when they were written."""
    found: list[list[Any]] = []
    for name in ("PIL", "datasets", "numpy", "torch", "torchvision"):
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            found.append([name, spec.origin, Path(spec.origin).stat().st_mtime_ns])
    return found


def _installed() -> list[list[Any]]:
    """The packages that Python finds, whose versions are in the names of their folders of facts, and when these were
    written."""
    found: list[list[Any]] = []
    for folder in sys.path:
        with suppress(OSError):
            entries = [entry for entry in os.scandir(folder or ".") if entry.name.endswith((".dist-info", ".egg-info"))]
            found += [[folder, entry.name, entry.stat().st_mtime_ns] for entry in entries]
    return sorted(found)
