"""Norms: one file each, the geometry that attacks need, so that no attack asks which norm it works in.

A norm is a stateless object. Batches lead: points are ``[n, ...]``, sizes ``[n]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import UnknownName
from harness.util import plugins
from harness.util.deferred import deferred
from harness.util.user_file import is_in_file

if TYPE_CHECKING:
    from harness.threat.norms._base import Norm as Norm
    from harness.threat.norms._base import column as column
    from harness.threat.norms._moves import Moves as Moves
    from harness.threat.norms._moves import Patches as Patches

__all__ = ["Moves", "Norm", "Patches", "column", "get", "is_sparse", "name_of", "names"]

# a board that names a norm does not need its geometry
__getattr__ = deferred(__name__, {"_base": ("Norm", "column"), "_moves": ("Moves", "Patches")})


_SPARSE = frozenset(("l1",))
"""Files of this package whose norm is sparse: what their classes say, readable without importing them."""


def names() -> tuple[str, ...]:
    """What the registered norms call themselves."""
    return tuple(name_of(name) for name in plugins.members(__name__))


def name_of(name: str) -> str:
    """What the norm ``name``, in upper or lower case, calls itself.

    Norms of this package are called like their files, with a capital; nothing of them is imported for it.

    Raises:
        UnknownName: no norm of that name.
    """
    file = name.lower()
    if plugins.is_own(__name__, file):
        return file.capitalize()
    return get(name).name


def is_sparse(name: str) -> bool:
    """Whether attacks change few values in the norm ``name``, as in L1; of a norm of this package nothing is imported.

    Raises:
        UnknownName, InvalidInput: as `get`.
    """
    file = name.lower()
    return file in _SPARSE if plugins.is_own(__name__, file) else get(name).sparse


def get(name: str) -> Norm:
    """The norm ``name`` in upper or lower case, or the one that ``FILE.py:NAME`` names.

    Raises:
        UnknownName: no norm of that name.
        InvalidInput: a file that does not define a norm.
    """
    if not is_in_file(name) and not plugins.is_member(__name__, name.lower()):
        raise UnknownName("norm", name, names())
    from harness.threat.norms._base import Norm

    norm: Norm = plugins.lookup(__name__, name if is_in_file(name) else name.lower(), "norm", Norm)
    return norm
