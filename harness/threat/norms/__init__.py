"""Norms: one file each, the geometry that attacks need, so that no attack asks which norm it works in.

A norm is a stateless object. Batches lead: points are ``[n, ...]``, sizes ``[n]``.
"""

from __future__ import annotations

from harness.errors import UnknownName
from harness.threat.norms._base import Norm, column
from harness.threat.norms._moves import Moves, Patches
from harness.util import plugins
from harness.util.user_file import is_in_file

__all__ = ["Moves", "Norm", "Patches", "column", "get", "names"]


def names() -> tuple[str, ...]:
    """What the registered norms call themselves."""
    return tuple(get(name).name for name in plugins.members(__name__))


def get(name: str) -> Norm:
    """The norm ``name`` in upper or lower case, or the one that ``FILE.py:NAME`` names.

    Raises:
        UnknownName: no norm of that name.
        InvalidInput: a file that does not define a norm.
    """
    if not is_in_file(name) and not plugins.is_member(__name__, name.lower()):
        raise UnknownName("norm", name, names())
    norm: Norm = plugins.lookup(__name__, name if is_in_file(name) else name.lower(), "norm", Norm)
    return norm
