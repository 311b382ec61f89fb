"""Loading a checkpoint that can be trusted to be what its manifest says, and saving one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from harness import models
from harness.checkpoints._manifest import Manifest, Parent, build_manifest, manifest_path, read_manifest
from harness.checkpoints._places import find
from harness.checkpoints._tensors import check_finite, differences, hash_tensors, pack, some
from harness.checkpoints.reading import StoredTensor, WeightsFile, kind_of, open_regular, open_weights
from harness.errors import CheckpointError, HarnessError
from harness.models import Model
from harness.util.choices import FileFormat
from harness.util.files import write_together
from harness.util.text import printable

__all__ = ["Checkpoint", "fill", "load", "save", "weights_sha256"]

# kept in every .pt, so that a file that lost its manifest can be imported without being described again
_SELF_DESCRIPTION = (
    "name", "architecture", "classes", "shape", "norm_layer", "normalization", "regime", "parent", "dataset", "threat",
)  # fmt: skip


_LARGEST = 4 << 30
"""A registered file is hashed whole before it is opened: so many bytes at most."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A registered model.

    Attributes:
        path: the weights file.
        manifest: what is known of it.
        model: in eval mode, on the device that was asked for.
    """

    path: Path
    manifest: Manifest
    model: Model

    @property
    def name(self) -> str:
        """What it is registered as."""
        return self.manifest.name

    def as_parent(self) -> Parent:
        """How the manifest of a model that is trained from this one refers to it."""
        return Parent(name=self.manifest.name, weights_sha256=self.manifest.weights_sha256)


def weights_sha256(model: nn.Module) -> str:
    """Hash of a model's weights: every tensor's name, dtype, shape and bytes, however they are packed.

    Of a `Model` the network alone counts, as it is what a checkpoint holds.
    """
    network = model.network if isinstance(model, Model) else model
    return hash_tensors({n: t for n, t in network.state_dict().items() if isinstance(t, Tensor)})


def load(name: str | Path, *, checkpoint_dir: str | Path | None = None, device: str = "cpu") -> Checkpoint:
    """Load a checkpoint by path or name (`find`), checked against its manifest in every respect.

    Raises:
        UnknownName: there is none of that name.
        CheckpointError: no manifest, another hash, a damaged file, code in it, or tensors that do not fit
            the architecture (the error lists what differs).
    """
    path = find(name, checkpoint_dir)
    beside = manifest_path(path)
    if not beside.is_file():
        raise CheckpointError(
            f"{path} has no manifest ({beside.name}) beside it: register it with "
            f"'harness import {path} --name NAME --architecture ARCHITECTURE'"
        )
    manifest = read_manifest(beside)
    if manifest.file != path.name:
        raise CheckpointError(f"the manifest {beside} belongs to {manifest.file}, not to {path.name}")
    found = _file_sha256(path)
    if found != manifest.sha256:
        raise CheckpointError(
            f"{path} is not the file that its manifest describes: sha256 is {found[:12]}..., expected "
            f"{manifest.sha256[:12]}...; fetch it again, or import it anew"
        )
    with open_weights(path) as file:
        tensors = _plain(file)
        model = _empty_model(manifest, path)
        _check_fit(model, tensors, str(path))
        fill(model, file.read(tensors), str(path))
    if weights_sha256(model) != manifest.weights_sha256:
        raise CheckpointError(f"the weights in {path} have another hash than its manifest says: import it anew")
    parameters = sum(p.numel() for p in model.parameters())
    if parameters != manifest.parameters:
        raise CheckpointError(f"{path} has {parameters} parameters, its manifest says {manifest.parameters}")
    return Checkpoint(path, manifest, model.eval().to(device))


def _file_sha256(path: Path) -> str:
    with open_regular(path, largest=_LARGEST) as (stream, _):
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _plain(file: WeightsFile) -> dict[str, StoredTensor]:
    """The tensors of a registered file, which holds nothing but them and this package's metadata.

    Raises:
        CheckpointError: anything else is in it.
    """
    held = file.value
    if file.objects:
        raise CheckpointError(
            f"{file.path} holds Python objects ({some(file.objects)}), which no registered checkpoint does; they were "
            "not opened"
        )
    if file.path.suffix != ".safetensors":
        if type(held) is not dict or "state_dict" not in held:
            raise CheckpointError(f"{file.path} has no entry 'state_dict': register it with 'harness import'")
        held = held["state_dict"]
    if type(held) is not dict:
        raise CheckpointError(f"{file.path} holds {kind_of(held)}, expected a dictionary of names and tensors")
    if not held:
        raise CheckpointError(f"{file.path} holds no tensors")
    for name, value in held.items():
        if type(name) is not str or not isinstance(value, StoredTensor):
            raise CheckpointError(
                f"{file.path}: expected names and tensors only, got {printable(kind_of(value))} at {printable(name)!r}"
            )
        if value.defect:
            raise CheckpointError(f"{file.path}: the tensor {printable(name)!r} {value.defect}")
    return held


def _empty_model(manifest: Manifest, path: Path) -> Model:
    architecture = manifest.architecture
    file, colon, factory = architecture.partition(".py:")
    beside = path.parent / f"{file}.py"
    if colon and not Path(f"{file}.py").is_file() and beside.is_file():
        architecture = f"{beside}:{factory}"
    return models.build(
        architecture,
        classes=manifest.classes,
        shape=manifest.shape,
        norm_layer=manifest.norm_layer,
        normalization=manifest.normalization,
        seed=0,
    )


def fill(model: Model, tensors: Mapping[str, Tensor], where: str) -> None:
    """Put weights into a model that they fit exactly.

    Raises:
        CheckpointError: names, shapes or dtypes differ (listed), or a value is not finite.
    """
    _check_fit(model, tensors, where)
    check_finite(tensors, where)
    try:
        model.network.load_state_dict(dict(tensors), strict=True)
    except Exception as error:  # modules may read extra state of their own, and fail at it in any way
        raise CheckpointError(f"{where} does not fit {model.architecture}: {' '.join(str(error).split())}") from error


def _check_fit(model: Model, tensors: Mapping[str, Tensor] | Mapping[str, StoredTensor], where: str) -> None:
    differ = differences(model.network.state_dict(), tensors)
    if differ:
        raise CheckpointError(f"{where} does not fit the architecture {model.architecture}: {'; '.join(differ)}")


def save(
    model: Model,
    *,
    directory: str | Path,
    name: str,
    regime: str | None = None,
    definition: Mapping[str, Any] | None = None,
    parent: Parent | None = None,
    dataset: str | None = None,
    threat: str | None = None,
    trained_parameters: int | None = None,
    training: Mapping[str, Any] | None = None,
    source: str | None = None,
    source_sha256: str | None = None,
    notes: Sequence[str] = (),
    assumed: Sequence[str] = (),
    file_format: FileFormat = "pt",
    overwrite: bool = False,
) -> Path:
    """Register a model: ``directory/NAME.pt`` and its manifest ``NAME.toml``, both or neither.

    Equal models and facts give equal bytes.

    Raises:
        CheckpointError: a name that is no plain file name, other weights of that name (unless
            ``overwrite``), or weights that are not finite.
        StorageError: the folder cannot be written.
    """
    folder = Path(directory).expanduser()
    fields: dict[str, Any] = {
        "name": name,
        "file": f"{name}.{file_format}",
        "weights_sha256": weights_sha256(model),
        "architecture": model.architecture,
        "classes": model.classes,
        "shape": model.shape,
        "norm_layer": model.norm_layer,
        "normalization": model.normalization,
        "regime": regime,
        "definition": dict(definition or {}),
        "parent": parent,
        "dataset": dataset,
        "threat": threat,
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_parameters": trained_parameters,
        "source": source,
        "source_sha256": source_sha256,
        "notes": tuple(notes),
        "assumed": tuple(assumed),
        "training": dict(training or {}),
    }
    where = f"cannot register {name!r}"
    draft = build_manifest(where, {**fields, "sha256": "0" * 64})
    check_finite(model.network.state_dict(), where)
    metadata = draft.model_dump(mode="json", include=set(_SELF_DESCRIPTION), exclude_none=True)
    content = pack(model.network, metadata, safetensors_format=file_format == "safetensors")
    manifest = draft.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    if not overwrite:
        _refuse_to_replace(folder, manifest)
    path = folder / manifest.file
    write_together({path: content, manifest_path(path): manifest.to_toml().encode()})
    return path


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _refuse_to_replace(folder: Path, manifest: Manifest) -> None:
    beside = folder / f"{manifest.name}.toml"
    if beside.is_file():
        try:
            there = read_manifest(beside)
        except HarnessError:
            there = None
        if there is not None and (there.weights_sha256, there.file) == (
            manifest.weights_sha256,
            manifest.file,
        ):
            return
    files = [folder / f"{manifest.name}.{suffix}" for suffix in ("pt", "safetensors", "toml")]
    # the same weights without a manifest: whoever wrote them was killed in between
    taken = [file for file in files if file.exists() and (file.name, _sha256(file)) != (manifest.file, manifest.sha256)]
    if taken:
        raise CheckpointError(
            f"{taken[0]} exists already with other weights: choose another name, or ask to overwrite it"
        )
