"""Trained models into the registry, each with its manifest, and the log beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness import regimes
from harness.checkpoints import Checkpoint, save
from harness.datasets import Dataset
from harness.errors import CheckpointError
from harness.regimes._base import Regime
from harness.training.outcome import TrainingOutcome, write_log
from harness.util.choices import KeptEpochs

__all__ = ["Registered", "refuse_existing", "register"]


@dataclass(frozen=True)
class Registered:
    """What was written; None for what was not asked for."""

    last: Path | None
    best: Path | None
    log: Path


def register(
    outcome: TrainingOutcome,
    *,
    regime: Regime,
    dataset: Dataset,
    parent: Checkpoint | None,
    directory: str | Path,
    name: str,
    kept: KeptEpochs = "both",
    command: str | None = None,
    overwrite: bool = False,
) -> Registered:
    """Write ``NAME.pt`` (the last epoch), ``NAME_best.pt``, their manifests, and the log ``NAME.csv``.

    With ``kept="best"`` the best epoch is ``NAME.pt``. When all of it is written, the state of the run is removed.

    Args:
        command: the command line that makes the same again, for the manifest.

    Raises:
        CheckpointError: other weights of such a name.
        StorageError: a file that cannot be written.
    """
    folder = Path(directory).expanduser()
    facts: dict[str, Any] = {"command": command} if command else {}

    def write(which: Literal["last", "best"], called: str) -> Path:
        epoch = outcome.best_epoch if which == "best" else outcome.epochs
        return save(
            outcome.best if which == "best" else outcome.last,
            directory=folder,
            name=called,
            regime=regime.name,
            definition=_definition(regime),
            parent=None if parent is None else parent.as_parent(),
            dataset=dataset.name,
            threat=outcome.facts["threat"],
            trained_parameters=outcome.trained_parameters,
            training={**facts, "kept": which, "epoch": epoch, **outcome.facts, **outcome.validation(epoch)},
            overwrite=overwrite,
        )

    last = write("last", name) if kept != "best" else None
    best = write("best", name if kept == "best" else f"{name}_best") if kept != "last" else None
    log = write_log(folder / f"{name}.csv", outcome.log)
    if outcome.state is not None:
        outcome.state.remove()
    return Registered(last, best, log)


def _definition(regime: Regime) -> dict[str, Any]:
    """What lineage needs to check the claim of a regime that the package does not know."""
    if regime.name in regimes.names() and regimes.get(regime.name) == regime:
        return {}
    return regime.model_dump(mode="json", exclude_unset=True, exclude_none=True, exclude={"name"})


def refuse_existing(directory: str | Path, name: str, kept: KeptEpochs) -> None:
    """Before training rather than after it: is there something that would be overwritten?

    Raises:
        CheckpointError: there is.
    """
    names = [name, f"{name}_best"] if kept == "both" else [name]
    for file in (Path(directory).expanduser() / f"{n}.{suffix}" for n in names for suffix in ("pt", "toml")):
        if file.exists():
            raise CheckpointError(f"{file} exists already: choose another name, or ask to overwrite it")
