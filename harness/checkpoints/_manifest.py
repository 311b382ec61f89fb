"""What is written beside the weights: where they come from and what they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator

from harness.checkpoints._toml import to_toml
from harness.errors import CheckpointError, HarnessError
from harness.models import OWN, Normalization
from harness.threat import ThreatModel
from harness.util.limits import MOST_CLASSES, MOST_PIXELS, is_image_shape
from harness.util.reading import read_toml
from harness.util.user_file import is_in_file
from harness.util.validation import Record, validate

__all__ = [
    "SCHEMA_VERSION",
    "SUFFIXES",
    "Manifest",
    "Parent",
    "build_manifest",
    "check_name",
    "manifest_path",
    "read_manifest",
]

SCHEMA_VERSION = 1
SUFFIXES = (".pt", ".safetensors")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_NAME_RULE = "expected letters, digits and . _ + -, beginning with a letter or digit"
_LONGEST = 200
_HASH = r"^[0-9a-f]{64}$"


class Parent(Record):
    """The checkpoint that the weights were trained from."""

    name: str
    weights_sha256: str | None = Field(default=None, pattern=_HASH)


class Manifest(Record):
    """One registered checkpoint."""

    model_config = ConfigDict(populate_by_name=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: str
    file: str = Field(description="file name of the weights, in the manifest's folder")
    sha256: str = Field(pattern=_HASH, description="of that file")
    weights_sha256: str = Field(pattern=_HASH, description="of the tensors, however they are packed")
    architecture: str
    code_sha256: str | None = Field(
        default=None,
        pattern=_HASH,
        description="of the copied code, where the architecture is a file of the user's own",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="of the architecture, beside classes, shape and norm layer"
    )
    classes: int = Field(ge=2, le=MOST_CLASSES)
    shape: tuple[int, int, int] = Field(description="C, H, W")
    norm_layer: str = OWN
    normalization: Normalization | None = Field(default=None, description="inside the model; absent: none")
    regime: str | None = None
    definition: dict[str, Any] = Field(
        default_factory=dict, description="fields of the regime, where it is not one of the package"
    )
    parent: Parent | None = None
    dataset: str | None = Field(default=None, description="trained on, and evaluated on unless told otherwise")
    threat: str | None = Field(default=None, description="evaluated in unless told otherwise")
    parameters: int = Field(ge=0)
    trained_parameters: int | None = Field(default=None, ge=0)
    source: str | None = Field(default=None, description="where foreign weights come from")
    source_sha256: str | None = Field(default=None, pattern=_HASH, description="of the file that was imported")
    notes: tuple[str, ...] = Field(default=(), description="what an import had to change")
    assumed: tuple[str, ...] = Field(
        default=(), description="what the import concluded without being told; every result carries it as a flag"
    )
    training: dict[str, Any] = Field(default_factory=dict, description="facts: seed, epochs, attack, ...")

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        # names become file names; one with a path in it would be written outside of its folder
        if not _NAME.fullmatch(name) or len(name) > _LONGEST:
            raise ValueError(f"{_NAME_RULE}, at most {_LONGEST} of them")
        return name

    @field_validator("file")
    @classmethod
    def _file(cls, file: str) -> str:
        if not _NAME.fullmatch(file) or Path(file).suffix not in SUFFIXES:
            raise ValueError(f"expected a file name that ends in {' or '.join(SUFFIXES)}")
        return file

    @field_validator("shape")
    @classmethod
    def _shape(cls, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        if not is_image_shape(shape):
            raise ValueError(f"expected channels, height and width of at least 1, and at most {MOST_PIXELS} in all")
        return shape

    @field_validator("normalization", mode="before")
    @classmethod
    def _normalization(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        if set(value) != {"mean", "std"}:
            raise ValueError("expected mean and std")
        return Normalization(value["mean"], value["std"])

    @field_validator("arguments", "definition", "training")
    @classmethod
    def _facts(cls, facts: dict[str, Any]) -> dict[str, Any]:
        # numbers that are not finite, dates: what JSON cannot hold, and this package never writes
        to_toml(facts)
        return facts

    @field_validator("threat")
    @classmethod
    def _threat(cls, threat: str | None) -> str | None:
        norm, _, eps = (threat or "").rpartition(":")
        if is_in_file(norm):
            # the norm is code, which no manifest makes run: it is looked up where the threat model is used
            return f"{norm}:{ThreatModel('Linf', eps).eps}"
        return None if threat is None else str(ThreatModel.parse(threat))

    def to_toml(self) -> str:
        """The manifest as it is written to disk."""
        table = self.model_dump(by_alias=True, exclude_none=True)
        return to_toml({name: value for name, value in table.items() if value not in ((), {})})


def manifest_path(weights: Path) -> Path:
    """Where the manifest of a weights file lies."""
    return weights.with_suffix(".toml")


def check_name(name: str) -> None:
    """Find out before hours of work that nothing can be registered as ``name``.

    Raises:
        CheckpointError: it is no plain file name, or too long for one.
    """
    if not _NAME.fullmatch(name):
        raise CheckpointError(f"cannot register {name!r}: {_NAME_RULE}")
    if len(name) > _LONGEST:
        raise CheckpointError(
            f"cannot register {name[:20]!r}...: expected a name of at most {_LONGEST} characters, got {len(name)}"
        )


def build_manifest(where: str, fields: Mapping[str, Any]) -> Manifest:
    """A manifest from fields.

    Raises:
        CheckpointError: a field that is unknown, missing or wrong; ``where`` begins the sentence.
    """
    try:
        return validate(Manifest, fields, where, raises=CheckpointError)
    except CheckpointError:
        raise
    except HarnessError as error:
        raise CheckpointError(f"{where}: {error}") from error


def read_manifest(path: Path) -> Manifest:
    """Read ``NAME.toml``.

    Raises:
        CheckpointError: it cannot be read, is no TOML, or has a field that is unknown, missing or wrong.
    """
    try:
        fields = read_toml(path)
    except OSError as error:
        raise CheckpointError(f"cannot read the manifest {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"the manifest {path} is not valid TOML: {error}") from error
    version = fields.get("schema")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise CheckpointError(
            f"the manifest {path} has schema {version}, "
            f"this version of harness reads up to {SCHEMA_VERSION}: upgrade it"
        )
    manifest = build_manifest(f"the manifest {path}", fields)
    if Path(manifest.file).stem != path.stem:
        raise CheckpointError(
            f"the manifest {path} names the file {manifest.file!r}, expected {path.stem}.pt or {path.stem}.safetensors"
        )
    return manifest
