"""Checkpoints: registered weights, each with a manifest that says what they are.

``NAME.pt`` (a state dict and metadata, loaded with ``weights_only=True``) or ``NAME.safetensors``, and
beside it ``NAME.toml`` with hashes, architecture, normalisation, regime, parent and training facts.
"""

from __future__ import annotations

from harness.checkpoint._foreign import import_file
from harness.checkpoint._manifest import Manifest, Parent, check_name, manifest_path, read_manifest
from harness.checkpoint._normalizations import NORMALIZATIONS
from harness.checkpoint._places import available, find, folders
from harness.checkpoint._registry import Checkpoint, load, save, weights_sha256
from harness.checkpoint._tensors import differences

__all__ = [
    "NORMALIZATIONS",
    "Checkpoint",
    "Manifest",
    "Parent",
    "available",
    "check_name",
    "differences",
    "find",
    "folders",
    "import_file",
    "load",
    "manifest_path",
    "read_manifest",
    "save",
    "weights_sha256",
]
