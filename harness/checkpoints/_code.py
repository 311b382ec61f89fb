"""The code of a user's own architecture: copied beside the checkpoint, known by its hash, run only where trusted."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.checkpoints._manifest import Manifest
from harness.errors import CheckpointError, HarnessError
from harness.util import trust
from harness.util.user_file import is_in_file

__all__ = ["Code", "code_of", "runnable"]

_FOLDER = "code"
_DIGITS = 16


@dataclass(frozen=True)
class Code:
    """A copy of the sources of an architecture.

    Attributes:
        architecture: how a manifest in the same folder as the copy names it. sha256: of all its sources.
        files: texts by path relative to the manifest's folder.
    """

    architecture: str
    sha256: str
    files: dict[str, bytes]


def code_of(architecture: str) -> Code | None:
    """What to copy so that a checkpoint does not depend on a file elsewhere; None for architectures with a name.

    The code has just been run, because the user named it: it is trusted from now on. Equal code of several
    checkpoints lies in one folder.

    Raises:
        InvalidInput: the file is gone.
    """
    if not is_in_file(architecture):
        return None
    file, _, factory = architecture.rpartition(":")
    sha256 = trust.sources_sha256(file)
    trust.trust(sha256, file)
    folder = PurePosixPath(_FOLDER, sha256[:_DIGITS])
    files = {str(folder / name): text for name, text in trust.local_sources(file).items()}
    return Code(f"{folder / Path(file).name}:{factory}", sha256, files)


def runnable(manifest: Manifest, path: Path) -> str:
    """The architecture of a checkpoint as it can be built here: its name, with the path of its code where it has one.

    Warns where the file that the user named has changed since, as the copy beside the checkpoint has not.

    Args:
        path: of the weights.

    Raises:
        CheckpointError: its code is gone, has changed since the checkpoint was registered, or is not trusted.
    """
    for other in (manifest.norm_layer, manifest.dataset, manifest.regime, (manifest.threat or "").rpartition(":")[0]):
        if other and is_in_file(other):
            _check(path, Path(other.rpartition(":")[0]), None)
    if not is_in_file(manifest.architecture):
        return manifest.architecture
    name, _, factory = manifest.architecture.rpartition(":")
    file = _place(name, path, copied=manifest.code_sha256 is not None)
    sha256 = _check(path, file, manifest.code_sha256)
    if (edited := _edited(sha256, file)) is not None:
        warnings.warn(
            f"{edited} has changed since {manifest.name} was registered; the copy of it beside the checkpoint is used: "
            "import the weights anew if the change matters",
            stacklevel=1,
        )
    return f"{file}:{factory}"


def _place(name: str, path: Path, *, copied: bool) -> Path:
    beside = path.parent / name
    if not copied:
        # manifests of earlier versions name a file where it was, or beside them
        return beside if not Path(name).is_file() and beside.is_file() else Path(name)
    if not beside.resolve().is_relative_to(path.parent.resolve()):
        raise CheckpointError(f"the manifest of {path} names code outside of its folder ({name})")
    return beside


def _check(path: Path, file: Path, expected: str | None) -> str:
    """The hash of code that may be run."""
    try:
        sha256 = trust.sources_sha256(file)
        if expected not in (None, sha256):
            raise CheckpointError(
                f"the code {file} of {path} has changed since it was registered (sha256 is {sha256[:16]}..., expected "
                f"{expected[:16]}...): put it back, or import the weights anew with the changed code"
            )
        trust.check_trusted(sha256, file, f"the manifest of {path}")
    except CheckpointError:
        raise
    except HarnessError as error:
        raise CheckpointError(str(error)) from error
    return sha256


def _edited(sha256: str, file: Path) -> Path | None:
    """The file that the user named, if it is no longer what the copy is of."""
    named = trust.named_path(sha256)
    if named is None or named == file.resolve() or not named.is_file():
        return None
    try:
        now = trust.sources_sha256(named)
    except HarnessError:
        return None
    return named if now != sha256 else None
