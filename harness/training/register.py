"""Training whose outcome is registered: checkpoints with their manifests, and the log beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from harness import regimes
from harness.checkpoints import Checkpoint, check_name, save
from harness.datasets import Dataset
from harness.errors import CheckpointError, InvalidInput
from harness.regimes._base import Regime
from harness.training.loop import train
from harness.training.outcome import Progress, TrainingDiverged, TrainingOutcome, write_log
from harness.training.plan import plan
from harness.training.settings import Settings
from harness.training.state import StateFile
from harness.util.choices import KeptEpochs
from harness.util.devices import find_device
from harness.util.files import check_writable

__all__ = ["Registered", "register", "train_and_register"]


@dataclass(frozen=True)
class Registered:
    """What was written; None for what was not asked for."""

    last: Path | None
    best: Path | None
    log: Path


def train_and_register(
    regime: Regime,
    *,
    dataset: Dataset,
    settings: Settings,
    directory: Path,
    name: str,
    architecture: str | None = None,
    parent: Checkpoint | None = None,
    device: str | torch.device | None = None,
    kept: KeptEpochs = "both",
    command: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    state_dir: Path,
) -> tuple[TrainingOutcome, Registered]:
    """`train`, then `register`: what ``harness train`` and studies do.

    Everything that can be known to fail is known before anything is trained. A run that was killed, in training or
    while it was registered, continues when it is called again with the same arguments.

    Raises:
        CheckpointError: a name that cannot be registered, or is taken (unless ``overwrite``).
        InvalidInput: arguments that do not fit each other; or training that diverged, whose last finite state is then
            registered as ``NAME_before_divergence``.
        StorageError: a folder that cannot be written.
    """
    check_name(name)
    check_writable(directory)
    check_writable(state_dir)
    where = find_device(device)
    planned = plan(regime, settings, dataset, architecture=architecture, parent=parent, device=where)
    # a state that is there belongs to this very run, which may have been killed while it was registered
    if not overwrite and not StateFile(state_dir, planned.fingerprint).exists():
        _refuse_existing(directory, name, kept)

    def keep(outcome: TrainingOutcome, called: str, *, overwrite: bool) -> Registered:
        return register(
            outcome,
            regime=regime,
            dataset=dataset,
            parent=parent,
            directory=directory,
            name=called,
            kept=kept,
            command=command,
            overwrite=overwrite,
        )

    try:
        outcome = train(
            regime,
            dataset=dataset,
            settings=settings,
            architecture=architecture,
            parent=parent,
            device=where,
            progress=progress,
            state_dir=state_dir,
        )
    except TrainingDiverged as error:
        written = keep(error.outcome, f"{name}_before_divergence", overwrite=True)
        raise InvalidInput(f"{error} (kept as {written.last or written.best})") from error
    return outcome, keep(outcome, name, overwrite=overwrite)


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
    return regime.model_dump(mode="json", exclude_unset=True, exclude_none=True, exclude={"name", "protocol"})


def _refuse_existing(directory: Path, name: str, kept: KeptEpochs) -> None:
    names = [name, f"{name}_best"] if kept == "both" else [name]
    for file in (directory / f"{called}.{suffix}" for called in names for suffix in ("pt", "toml")):
        if file.exists():
            raise CheckpointError(f"{file} exists already: choose another name, or ask to overwrite it")
