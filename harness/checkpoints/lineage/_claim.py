"""Does a checkpoint's change since its parent agree with the regime that its manifest claims?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness import checkpoints as registry
from harness import models, regimes
from harness.checkpoints import Checkpoint
from harness.checkpoints.lineage._difference import Difference, difference
from harness.checkpoints.lineage._regimes import consistent_regimes, trains_everything, violations
from harness.errors import CheckpointError, HarnessError, InvalidInput, UnknownName
from harness.regimes._base import Regime
from harness.util.validation import validate

__all__ = ["Lineage", "Status", "parent_of", "verify_claim"]

Status = Literal["consistent", "contradicted", "unknown-parent", "unknown-regime", "root"]


@dataclass(frozen=True)
class Lineage:
    """Where a checkpoint comes from, as far as its weights bear it out.

    Attributes:
        status: "consistent" (nothing moved but what the regime trains), "contradicted", "unknown-parent"
            (the parent cannot be had, so nothing was checked), "unknown-regime" (none is claimed, or one
            that is not registered) or "root" (it starts at random and has no parent).
        reason: why, in one line.
        regimes: the registered regimes that the change is consistent with: those that train exactly what
            changed, or else those that train more.
        difference: from the parent, where there is one to compare with.
        unverified: the regime leaves something as it was, and nothing could be compared to see whether it did.
    """

    status: Status
    reason: str
    checkpoint: str
    regime: str | None
    parent: str | None
    regimes: tuple[str, ...] = ()
    difference: Difference | None = None
    unverified: bool = False


def parent_of(checkpoint: Checkpoint, *, checkpoint_dir: str | Path | None = None) -> Checkpoint | None:
    """The parent that a manifest names, from the checkpoint's own folder or any that is searched.

    Returns:
        None where no parent is named, or none with those weights can be found.
    """
    claimed = checkpoint.manifest.parent
    if claimed is None:
        return None
    for path in registry.parent_paths(checkpoint.path, claimed.name, checkpoint_dir):
        try:
            found = registry.load(path)
        except HarnessError:
            continue
        if claimed.weights_sha256 in (None, found.manifest.weights_sha256):
            return found
    return None


def verify_claim(checkpoint: Checkpoint, parent: Checkpoint | None) -> Lineage:
    """Check a manifest's claim of a regime against the weights.

    Args:
        parent: what the checkpoint was trained from (`parent_of`); None where it cannot be had.
    """
    manifest = checkpoint.manifest
    claimed = manifest.parent
    change = None
    fitting: tuple[str, ...] = ()
    if parent is not None:
        try:
            change = difference(checkpoint.model, parent.model)
            fitting = consistent_regimes(checkpoint.model, change)
        except CheckpointError as error:
            return Lineage("contradicted", str(error), manifest.name, manifest.regime, parent.name)
    status, reason, unverified = _verdict(checkpoint, parent, change)
    name = parent.name if parent is not None else claimed.name if claimed is not None else None
    return Lineage(status, reason, manifest.name, manifest.regime, name, fitting, change, unverified)


def _verdict(checkpoint: Checkpoint, parent: Checkpoint | None, change: Difference | None) -> tuple[Status, str, bool]:
    """Status, reason, and whether a claim that could be wrong was left unchecked."""
    manifest = checkpoint.manifest
    claimed = manifest.parent
    if manifest.regime is None:
        return (
            ("root", "no parent and no regime are claimed", False)
            if claimed is None
            else ("unknown-regime", "no regime is claimed", False)
        )
    try:
        regime = _regime(manifest.regime, manifest.definition)
    except (UnknownName, InvalidInput) as error:
        reason = f"the regime {manifest.regime!r} is not one of the package, and the manifest does not define it"
        reason = f"the manifest's definition is wrong: {error}" if manifest.definition else reason
        # a name alone, without a parent, claims nothing of the weights
        return "unknown-regime", reason, claimed is not None
    try:
        limited = not trains_everything(checkpoint.model, regime)
    except InvalidInput as error:
        return "contradicted", f"claims {regime.name}, but {error}", False
    if regime.start == "random":
        if not limited:
            reason = f"{regime.name} starts at random and trains everything, so there is nothing to check"
            return "root", reason, False
        status, reason = _root(checkpoint, regime)
        return status, reason, status == "root"
    if claimed is None:
        return "unknown-parent", f"{regime.name} starts from a parent, and the manifest names none", limited
    if parent is None or change is None:
        return "unknown-parent", f"the parent {claimed.name!r} was not found", limited
    if claimed.weights_sha256 not in (None, parent.manifest.weights_sha256):
        reason = f"{parent.name} does not have the weights of the parent {claimed.name!r} that is named"
        return "unknown-parent", reason, limited
    against = violations(checkpoint.model, change, regime)
    declared = manifest.trained_parameters
    if declared is not None and change.changed_parameters > declared:
        against.append(f"{change.changed_parameters} parameters changed, {declared} are declared as trained")
    if against:
        return "contradicted", f"claims {regime.name}, but {'; '.join(against)}", False
    return "consistent", f"nothing moved since {parent.name} but what {regime.name} trains", False


def _regime(name: str, definition: dict[str, Any]) -> Regime:
    """The package's regime of that name, or else the one that the manifest defines.

    Raises:
        UnknownName: neither is there. InvalidInput: the definition is wrong.
    """
    if not definition or name in regimes.names():
        return regimes.get(name)
    table = {"summary": "as the manifest defines it"} | definition | {"name": name}
    return validate(Regime, table, f"the regime {name!r} in the manifest")


def _root(checkpoint: Checkpoint, regime: Regime) -> tuple[Status, str]:
    """Of a regime that starts at random and does not train everything: the start can be repeated from its
    seed, so that what the regime must not train can be compared with it. Where the comparison fails, another
    version of torch or another processor may be the reason, so that it proves nothing, neither way."""
    manifest = checkpoint.manifest
    seed = manifest.training.get("seed")
    if not isinstance(seed, int):
        return "root", f"{regime.name} starts at random, and the manifest does not say from which seed"
    try:
        start = models.build(
            checkpoint.model.architecture,
            classes=manifest.classes,
            shape=manifest.shape,
            norm_layer=manifest.norm_layer,
            normalization=manifest.normalization,
            arguments=manifest.arguments,
            seed=seed,
        )
    except HarnessError as error:
        return "root", f"{regime.name} starts at random, and the network cannot be built anew here: {error}"
    if violations(checkpoint.model, difference(checkpoint.model, start), regime):
        return "root", f"{regime.name} starts at random, and the start from seed {seed} could not be repeated here"
    return "consistent", f"nothing moved since the start from seed {seed} but what {regime.name} trains"
