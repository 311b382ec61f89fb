"""Which threat model is meant, from what was asked for and what is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.cli._render import print_line
from harness.errors import InvalidInput
from harness.threat import ThreatModel

if TYPE_CHECKING:
    from harness.checkpoints import Manifest
    from harness.datasets import Dataset

__all__ = ["choose"]

_NORMALIZED = "normalized"


def choose(
    manifest: Manifest, dataset: Dataset, *, norm: str | None, eps: str | None, eps_units: str = "pixel"
) -> ThreatModel:
    """The threat model asked for; what is None comes from the manifest, else from the data set.

    A radius in normalised units is converted, with a warning on stderr.

    Raises:
        InvalidInput: no eps is given and none is standard, or it is in normalised units and the model has no
            normalisation.
    """
    known = [ThreatModel.parse(manifest.threat)] if manifest.threat else []
    known += dataset.threats
    if norm is not None:
        norm = ThreatModel(norm, "1").norm
        known = [threat for threat in known if threat.norm == norm]
    chosen = norm or (known[0].norm if known else None)
    if chosen is None or (eps is None and not known):
        raise InvalidInput(
            f"neither {manifest.name} nor the data set {dataset.name} has a standard eps for "
            f"{f'the norm {norm}' if norm else 'any norm'}: give {'--eps' if norm else '--norm and --eps'}"
        )
    if eps is None:
        return known[0]
    if eps_units != _NORMALIZED:
        return ThreatModel(chosen, eps)
    if manifest.normalization is None:
        raise InvalidInput(
            f"{manifest.name} has no normalisation in its manifest, so an eps in normalised units means nothing for "
            "it: leave out --eps-units"
        )
    threat = ThreatModel.parse(f"{chosen}:{eps}@{_NORMALIZED}", std=manifest.normalization.std)
    print_line(f"warning: {manifest.name}: {threat.note}", err=True)
    return threat
