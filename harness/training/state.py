"""What a run that was killed goes on from: the end of its last epoch, in one file that is replaced whole."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness.errors import CheckpointError, InvalidInput
from harness.util.files import write_atomically
from harness.weights import read_plain

__all__ = ["StateFile"]

_NAMES = {"epoch", "model", "average", "best", "best_epoch", "best_score", "optimizers", "log"}


@dataclass(frozen=True)
class StateFile:
    """The state of the run with this fingerprint; another run has another file.

    Attributes:
        directory: made when something is saved. None keeps no state.
        fingerprint: hash of all that decides the outcome.
    """

    directory: Path | None
    fingerprint: str

    @property
    def path(self) -> Path | None:
        """Where the state lies."""
        return None if self.directory is None else self.directory / f"training-{self.fingerprint[:16]}.pt"

    def exists(self) -> bool:
        """Whether a run can continue from here."""
        return self.path is not None and self.path.exists()

    def load(self) -> dict[str, Any] | None:
        """The state that was saved last, if there is one.

        Raises:
            InvalidInput: a file that is damaged.
        """
        if self.path is None or not self.exists():
            return None
        try:
            state = read_plain(self.path)
        except CheckpointError as error:
            raise InvalidInput(f"the training state {self.path} is damaged; delete it to begin anew") from error
        if type(state) is not dict or not state.keys() >= _NAMES:
            raise InvalidInput(f"the training state {self.path} is damaged; delete it to begin anew")
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state.

        Raises:
            StorageError: it cannot be written.
        """
        if self.path is None:
            return
        write_atomically(self.path, partial(torch.save, state))

    def remove(self) -> None:
        """Remove the state, and its folder if that leaves it empty."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            with suppress(OSError):  # other states are there
                self.path.parent.rmdir()
