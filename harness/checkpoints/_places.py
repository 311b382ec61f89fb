"""Where checkpoints lie, and finding one by its name."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from harness import models
from harness.checkpoints._hub import fetch_checkpoint, is_on_hub
from harness.checkpoints._manifest import SUFFIXES, Manifest, manifest_path, read_manifest
from harness.errors import CheckpointError, UnknownName
from harness.util import paths
from harness.util.reading import read_lines
from harness.util.text import printable

__all__ = ["available", "find", "folders", "matching", "parent_paths"]

_PACKAGE = Path(__file__).resolve().parents[1]


def folders(checkpoint_dir: str | Path | None = None) -> tuple[Path, ...]:
    """The folders that are searched, in order: ``checkpoint_dir``, ``$HARNESS_HOME/checkpoints``,
    ``./checkpoints``, and those that come with the package.

    Raises:
        CheckpointError: ``checkpoint_dir`` is given and is no folder.
    """
    wanted: list[Path] = []
    if checkpoint_dir is not None:
        given = Path(checkpoint_dir).expanduser()
        if not given.is_dir():
            raise CheckpointError(f"the checkpoint folder {given} does not exist")
        wanted.append(given)
    wanted += [paths.checkpoints_root(), Path("checkpoints")]
    installed = _PACKAGE / "_shipped" / "checkpoints"
    wanted.append(installed if installed.is_dir() else _PACKAGE.parent / "checkpoints")
    kept: dict[Path, Path] = {}
    for folder in wanted:
        if folder.is_dir():
            kept.setdefault(folder.resolve(), folder)
    return tuple(kept.values())


def find(name: str | Path, checkpoint_dir: str | Path | None = None) -> Path:
    """The weights file that ``name`` means: a path, a file's name with or without its suffix, or ``hf:ORG/REPO``, which
    is fetched. A name of a network that comes with its weights (`harness.models.is_complete`) is returned as it is.

    Raises:
        CheckpointError: it looks like a path and there is no such file.
        UnknownName: no checkpoint of that name in any of `folders`.
    """
    if is_on_hub(name):
        return fetch_checkpoint(str(name))
    if models.is_complete(str(name)):
        return Path(name)
    asked = Path(name).expanduser()
    is_path = asked.is_absolute() or len(asked.parts) > 1
    # a bare name means a file of the current folder only if it is one, suffix and all
    weights = _file(asked) if is_path or asked.is_file() else None
    if weights is not None:
        return weights
    if is_path:
        raise CheckpointError(f"no such checkpoint: {asked} ({_looked_at(asked.parent)})")
    searched = folders(checkpoint_dir)
    for folder in searched:
        weights = _file(folder / asked)
        if weights is not None:
            return weights
    known = {path.stem for folder in searched for path in _weights_in(folder)}
    raise UnknownName("checkpoint", str(name), known)


def parent_paths(path: Path, name: str, checkpoint_dir: str | Path | None = None) -> list[Path]:
    """The weights files that may be the parent ``name`` of the checkpoint ``path``, in the order of search: its own
    folder comes first, then `folders`."""
    found = []
    for folder in (path.parent, *folders(checkpoint_dir)):
        with suppress(CheckpointError, UnknownName):
            found.append(find(folder.absolute() / name))
    return found


def matching(names: Iterable[str], checkpoint_dir: str | Path | None = None) -> list[str]:
    """Names of single checkpoints from names, patterns (``bn_*``), folders, and ``.txt`` files that list these.

    Single names are passed on as they are; the others become the paths of what they mean, each only once. A pattern
    means what the first folder has that has any of it.

    Raises:
        UnknownName, CheckpointError: a pattern, folder or list that means none.
    """
    found: dict[str, None] = {}
    for name in names:
        found |= dict.fromkeys(_meant(name, checkpoint_dir))
    return list(found)


def _meant(name: str, checkpoint_dir: str | Path | None, *, listed: bool = False) -> list[str]:
    path = Path(name).expanduser()
    if path.is_dir():
        inside = [str(weights) for weights in _weights_in(path) if manifest_path(weights).is_file()]
        if not inside:
            raise CheckpointError(f"{path} holds no registered checkpoints ({_looked_at(path)})")
        return inside
    if path.suffix == ".txt":
        if listed:
            raise CheckpointError(f"a list of checkpoints names no other lists, got {printable(name)!r}")
        return [one for line in _lines(path) for one in _meant(line, checkpoint_dir, listed=True)]
    if not _PATTERN.search(name):
        return [name]
    places = [path.parent] if len(path.parts) > 1 else folders(checkpoint_dir)
    for folder in places:  # those that come with the package are not meant where there are others
        files = {
            weights.stem: str(weights)
            for weights in _weights_in(folder)
            if fnmatch(weights.stem, path.name) or fnmatch(weights.name, path.name)
        }
        if files:
            return [files[stem] for stem in sorted(files)]
    raise UnknownName("checkpoint", name, {weights.stem for folder in places for weights in _weights_in(folder)})


def _lines(path: Path) -> list[str]:
    try:
        lines = [line for line in read_lines(path) if not line.startswith("#")]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read the list of checkpoints {path}: {error}") from error
    if not lines:
        raise CheckpointError(f"the list of checkpoints {path} is empty")
    if len(lines) > _MOST_LISTED:
        raise CheckpointError(f"a list of checkpoints has at most {_MOST_LISTED:,} lines, got {len(lines):,} in {path}")
    return lines


_PATTERN = re.compile(r"[*?[]")
_MOST_LISTED = 10_000


def available(checkpoint_dir: str | Path | None = None) -> list[Manifest]:
    """The manifests of all checkpoints that can be found by name, sorted by name.

    One that cannot be read is left out, with a warning that names it.
    """
    found: dict[str, Manifest] = {}
    for folder in folders(checkpoint_dir):
        for weights in _weights_in(folder):
            if weights.stem not in found and manifest_path(weights).is_file():
                try:
                    found[weights.stem] = read_manifest(manifest_path(weights))
                except CheckpointError as error:
                    warnings.warn(f"left out: {error}", stacklevel=2)
    return [found[name] for name in sorted(found)]


def _file(path: Path) -> Path | None:
    if path.suffix == ".toml":
        path = path.with_suffix("")
    elif path.is_file():
        return path
    candidates = [path.with_name(path.name + suffix) for suffix in SUFFIXES] if path.name else []
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _weights_in(folder: Path) -> list[Path]:
    return sorted(path for suffix in SUFFIXES for path in folder.glob(f"[!.]*{suffix}"))


def _looked_at(folder: Path) -> str:
    if not folder.is_dir():
        return f"the folder {folder} does not exist"
    names = [path.name for path in _weights_in(folder)]
    return f"the folder holds {', '.join(names)}" if names else "the folder holds no checkpoints"
