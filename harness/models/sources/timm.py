"""timm:NAME, a model of timm."""

from __future__ import annotations

from harness.errors import UnknownName
from harness.models._base import Shape
from harness.models.norm_layers import NormLayer
from harness.models.sources._base import Foreign, library, similar

__all__ = ["timm"]


def timm(name: str, classes: int, shape: Shape, norm: NormLayer | None) -> Foreign:
    """The model ``name`` without weights from elsewhere."""
    package = library("timm")
    if not package.is_model(name):
        raise UnknownName("timm architecture", name, similar(name, package.list_models()))
    settings = package.get_pretrained_cfg(name)
    # networks that are built for one size (transformers) are told which
    size = {"img_size": shape[1:]} if settings is not None and settings.fixed_input_size else {}
    return Foreign(package.create_model(name, pretrained=False, num_classes=classes, in_chans=shape[0], **size))
