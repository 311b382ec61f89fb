"""Norms: the geometry that attacks need, so that no attack asks which norm it works in.

A norm is a stateless object. Batches lead: points are ``[n, ...]``, sizes ``[n]``.
"""

from __future__ import annotations

from harness.threat.norms._base import Norm, column
from harness.threat.norms.l1 import l1
from harness.threat.norms.l2 import l2
from harness.threat.norms.linf import linf

__all__ = ["NORMS", "Norm", "column"]

NORMS: dict[str, Norm] = {norm.name: norm for norm in (linf, l2, l1)}
