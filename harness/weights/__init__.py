"""Reading files of weights that strangers wrote, without running anything in them.

A file is opened in two steps: first what it holds is described (names, types, shapes, and where the numbers lie),
with bounds on everything that a file can ask for; then the tensors that are wanted are read. Optimiser states and
second copies of a network cost nothing.
"""

from __future__ import annotations

from harness.weights._file import WeightsFile, open_regular, open_weights
from harness.weights._plain import read_plain
from harness.weights._shards import open_weights_or_shards, source_sha256
from harness.weights._values import Other, StoredTensor, Value, kind_of

__all__ = [
    "Other",
    "StoredTensor",
    "Value",
    "WeightsFile",
    "kind_of",
    "open_regular",
    "open_weights",
    "open_weights_or_shards",
    "read_plain",
    "source_sha256",
]
