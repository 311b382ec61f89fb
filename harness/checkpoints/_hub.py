"""Checkpoints from the Hugging Face Hub: ``hf:ORG/REPO[@REVISION]``.

Only safetensors files are fetched, never a pickle. The revision is resolved to a commit first, and everything is
fetched from that commit.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from harness.checkpoints._manifest import manifest_path, read_manifest
from harness.errors import CheckpointError, HarnessError
from harness.util import paths
from harness.util.files import write_atomically
from harness.util.hub import hub, on_hub

__all__ = ["fetch_checkpoint", "fetch_weights", "is_on_hub"]

_FORM = re.compile(r"hf:([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([A-Za-z0-9][\w./-]*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = ".safetensors"
_CODE = "code"


class _Repository(NamedTuple):
    """One commit of a repository, and where its files are put here."""

    repo: str
    commit: str
    files: tuple[str, ...]

    @property
    def source(self) -> str:
        return f"hf:{self.repo}@{self.commit}"

    @property
    def folder(self) -> Path:
        return _folder(self.repo, self.commit)

    def fetch(self, file: str, folder: Path | None = None) -> Path:
        with on_hub(f"cannot fetch {file} of {self.source}", "try again, or name a checkpoint on this machine"):
            fetched = hub().hf_hub_download(
                repo_id=self.repo, filename=file, revision=self.commit, local_dir=folder or self.folder
            )
        return Path(fetched)


def is_on_hub(name: str | Path) -> bool:
    """Whether a name says that a checkpoint lies on the Hub."""
    return str(name).startswith("hf:")


def fetch_checkpoint(name: str) -> Path:
    """The weights file of the checkpoint that a repository holds, fetched with its manifest and its code.

    A commit that was fetched before is not asked for again.

    Raises:
        CheckpointError: the name has not the form, or the repository holds no checkpoint of this package.
        HarnessError: the Hub cannot be reached, or has no such repository or revision.
    """
    repo, revision = _parsed(name)
    here = _fetched(repo, revision) if revision and _COMMIT.fullmatch(revision) else None
    if here is not None:
        return here
    found = _resolved(name, repo, revision)
    here = _fetched(repo, found.commit)
    if here is not None:
        return here
    names = [file for file in found.files if "/" not in file and file.endswith(".toml")]
    names = [file for file in names if f"{file.removesuffix('.toml')}{_WEIGHTS}" in found.files]
    if len(names) != 1:
        raise CheckpointError(
            f"{found.source} holds {len(names) or 'no'} checkpoint{'s' if len(names) > 1 else ''} of this package: "
            f"expected one manifest NAME.toml beside NAME{_WEIGHTS}; other weights in safetensors are registered by "
            f"'harness import {name} --name NAME --architecture ARCHITECTURE'"
        )
    code = [file for file in found.files if PurePosixPath(file).parts[0] == _CODE and file.endswith(".py")]
    for file in (f"{names[0].removesuffix('.toml')}{_WEIGHTS}", *code):
        found.fetch(file)
    with tempfile.TemporaryDirectory() as folder:
        manifest = read_manifest(found.fetch(names[0], Path(folder)))
    if not manifest.file.endswith(_WEIGHTS):
        raise CheckpointError(f"{found.source} has its weights in {manifest.file}: only safetensors are read")
    before = (f"published with the source {manifest.source}",) if manifest.source else ()
    kept = manifest.model_copy(update={"source": found.source, "notes": (*manifest.notes, *before)})
    path = found.folder / manifest.file
    # the manifest comes last: where it exists, everything was fetched
    write_atomically(manifest_path(path), kept.to_toml().encode())
    return path


def fetch_weights(name: str) -> tuple[Path, str]:
    """The safetensors files at the top of a repository, as a file or a folder of several.

    Returns:
        where they are, and the repository with its commit.

    Raises:
        CheckpointError, HarnessError: as `fetch_checkpoint`.
    """
    found = _resolved(name, *_parsed(name))
    top = [file for file in found.files if "/" not in file]
    weights = [file for file in top if file.endswith(_WEIGHTS)]
    if not weights:
        others = [file for file in top if file.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        beside = f", only {', '.join(others[:3])}, which may carry code and is not fetched" if others else ""
        raise CheckpointError(f"{found.source} holds no weights in safetensors{beside}")
    index = [file for file in top if file.endswith(f"{_WEIGHTS}.index.json")]
    fetched = [found.fetch(file) for file in (*weights, *index)]
    return (fetched[0] if len(weights) == 1 else found.folder), found.source


def _parsed(name: str) -> tuple[str, str | None]:
    form = _FORM.fullmatch(name)
    if form is None:
        raise CheckpointError(f"a checkpoint on the Hub is written hf:ORG/REPO or hf:ORG/REPO@REVISION, got {name!r}")
    return form[1], form[2]


def _folder(repo: str, commit: str) -> Path:
    return paths.checkpoints_root() / "hub" / f"{repo.replace('/', '--')}--{commit[:16]}"


def _fetched(repo: str, commit: str) -> Path | None:
    """The weights file of a commit that was fetched before, if it was."""
    for manifest in sorted(_folder(repo, commit).glob("*.toml")):
        if read_manifest(manifest).source == f"hf:{repo}@{commit}":
            return manifest.with_suffix(_WEIGHTS)
    return None


def _resolved(name: str, repo: str, revision: str | None) -> _Repository:
    with on_hub(f"cannot read {name} from the Hugging Face Hub", "check the name and the network"):
        information = hub().HfApi().model_info(repo, revision=revision)
    commit = str(information.sha)
    if not _COMMIT.fullmatch(commit):
        raise HarnessError(f"the Hugging Face Hub answered for {name} without a commit: got {commit[:40]!r}")
    files = tuple(str(sibling.rfilename) for sibling in information.siblings or ())
    safe = (file for file in files if file and ".." not in PurePosixPath(file).parts and not file.startswith("/"))
    return _Repository(repo, commit, tuple(safe))
