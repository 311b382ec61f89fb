"""robustbench:NAME, a network of the RobustBench zoo; also robustbench:DATASET/THREAT/NAME."""

from __future__ import annotations

from contextlib import suppress

from harness.errors import InvalidInput, UnknownName
from harness.models._base import Shape
from harness.models.norm_layers import NormLayer
from harness.models.sources._base import Foreign, need_colour, similar
from harness.models.sources._zoo import zoo_model, zoo_names

__all__ = ["robustbench"]

_DATASETS = {10: "cifar10", 100: "cifar100", 1000: "imagenet"}
# a name without a threat model is looked up in this order
_THREATS = ("Linf", "L2", "corruptions")


def robustbench(name: str, classes: int, shape: Shape, norm: NormLayer | None) -> Foreign:
    """The zoo's network ``name`` with fresh weights; nothing is downloaded."""
    need_colour(f"robustbench:{name}", shape[0])
    parts = name.split("/")
    if len(parts) == 3:
        return Foreign(zoo_model(parts[2], parts[0], parts[1]).train())
    if len(parts) != 1:
        raise InvalidInput(f"write robustbench:NAME or robustbench:DATASET/THREAT/NAME, got robustbench:{name}")
    dataset = _DATASETS.get(classes)
    if dataset is None:
        raise InvalidInput(
            f"robustbench has models for {sorted(_DATASETS)} classes, not for {classes}; "
            "write robustbench:DATASET/THREAT/NAME to choose one all the same"
        )
    threat_of: dict[str, str] = {}
    for threat in _THREATS:
        with suppress(UnknownName):  # not every data set has entries for every threat model
            threat_of = dict.fromkeys(zoo_names(dataset, threat), threat) | threat_of
    if name not in threat_of:
        raise UnknownName(f"robustbench model for {dataset}", name, similar(name, threat_of))
    return Foreign(zoo_model(name, dataset, threat_of[name]).train())
