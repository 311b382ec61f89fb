"""Checkpoints: registered weights, each with a manifest that says what they are.

``NAME.pt`` (a state dict and metadata, loaded with ``weights_only=True``) or ``NAME.safetensors``, and
beside it ``NAME.toml`` with hashes, architecture, normalisation, regime, parent and training facts.
"""

from __future__ import annotations

from harness.checkpoints._candidates import Comparison, compare_normalizations
from harness.checkpoints._foreign import import_file
from harness.checkpoints._manifest import Manifest, Parent, check_name, manifest_path, read_manifest
from harness.checkpoints._normalizations import NORMALIZATIONS
from harness.checkpoints._places import available, find, folders, matching
from harness.checkpoints._registry import Checkpoint, load, save, weights_sha256
from harness.checkpoints._tensors import differences

__all__ = [
    "NORMALIZATIONS",
    "Checkpoint",
    "Comparison",
    "Manifest",
    "Parent",
    "available",
    "check_name",
    "compare_normalizations",
    "differences",
    "find",
    "folders",
    "import_file",
    "load",
    "manifest_path",
    "matching",
    "read_manifest",
    "save",
    "weights_sha256",
]
