"""Checkpoints: registered weights, each with a manifest that says what they are.

``NAME.pt`` (a state dict and metadata, loaded with ``weights_only=True``) or ``NAME.safetensors``, and
beside it ``NAME.toml`` with hashes, architecture, normalisation, regime, parent and training facts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.util.deferred import deferred

if TYPE_CHECKING:
    from harness.checkpoints._candidates import Comparison as Comparison
    from harness.checkpoints._candidates import compare_normalizations as compare_normalizations
    from harness.checkpoints._code import runnable as runnable
    from harness.checkpoints._foreign import import_file as import_file
    from harness.checkpoints._manifest import Manifest as Manifest
    from harness.checkpoints._manifest import Parent as Parent
    from harness.checkpoints._manifest import check_name as check_name
    from harness.checkpoints._manifest import manifest_path as manifest_path
    from harness.checkpoints._manifest import read_manifest as read_manifest
    from harness.checkpoints._normalizations import NORMALIZATIONS as NORMALIZATIONS
    from harness.checkpoints._places import available as available
    from harness.checkpoints._places import find as find
    from harness.checkpoints._places import folders as folders
    from harness.checkpoints._places import matching as matching
    from harness.checkpoints._places import parent_paths as parent_paths
    from harness.checkpoints._registry import Checkpoint as Checkpoint
    from harness.checkpoints._registry import load as load
    from harness.checkpoints._registry import save as save
    from harness.checkpoints._registry import weights_sha256 as weights_sha256
    from harness.checkpoints._tensors import differences as differences

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
    "parent_paths",
    "read_manifest",
    "runnable",
    "save",
    "weights_sha256",
]

# a name is looked up, and a manifest read, where no weights are
__getattr__ = deferred(
    __name__,
    {
        "_candidates": ("Comparison", "compare_normalizations"),
        "_code": ("runnable",),
        "_foreign": ("import_file",),
        "_manifest": ("Manifest", "Parent", "check_name", "manifest_path", "read_manifest"),
        "_normalizations": ("NORMALIZATIONS",),
        "_places": ("available", "find", "folders", "matching", "parent_paths"),
        "_registry": ("Checkpoint", "load", "save", "weights_sha256"),
        "_tensors": ("differences",),
    },
)
