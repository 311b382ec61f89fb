"""Models: one file each for the architectures of this package, and sources of others, named by a prefix.

A registered architecture is a function ``(classes, shape, norm) -> Network``; the norm layer that it
has by itself is the default of ``norm``. `build` puts the normalisation of the images in front.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.util.deferred import deferred

if TYPE_CHECKING:
    from harness.models._base import Model as Model
    from harness.models._base import Network as Network
    from harness.models._base import Recipe as Recipe
    from harness.models._base import Shape as Shape
    from harness.models._build import build as build
    from harness.models._build import names as names
    from harness.models._functions import Function as Function
    from harness.models._functions import as_module as as_module
    from harness.models._groups import in_group as in_group
    from harness.models._groups import layer_groups as layer_groups
    from harness.models._normalization import Normalization as Normalization
    from harness.models.sources import OWN as OWN
    from harness.models.sources import complete as complete
    from harness.models.sources import forms as forms
    from harness.models.sources import is_complete as is_complete

__all__ = [
    "OWN",
    "Function",
    "Model",
    "Network",
    "Normalization",
    "Recipe",
    "Shape",
    "as_module",
    "build",
    "complete",
    "forms",
    "in_group",
    "is_complete",
    "layer_groups",
    "names",
]

# a manifest names an architecture and a normalisation, and is read where no network is built
__getattr__ = deferred(
    __name__,
    {
        "_base": ("Model", "Network", "Recipe", "Shape"),
        "_build": ("build", "names"),
        "_functions": ("Function", "as_module"),
        "_groups": ("in_group", "layer_groups"),
        "_normalization": ("Normalization",),
        "sources": ("OWN", "complete", "forms", "is_complete"),
    },
)
