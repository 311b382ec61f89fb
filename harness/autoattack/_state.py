"""What a run leaves in a file, so that it is not repeated."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from harness.errors import InvalidInput
from harness.util.files import write_atomically
from harness.util.reading import parse_json, read_bounded
from harness.util.text import printable

__all__ = ["EvaluationState", "points_of"]

_LARGEST = 1 << 26


@dataclass
class EvaluationState:
    """What an AutoAttack run leaves in the file ``state_path``, in the reference's JSON fields.

    Attributes:
        attacks_to_run: names of all attacks of the run.
        run_attacks: those that are done.
        robust_flags: ``[n]``, 1 where a sample survives; float, because robustbench takes its mean.
        clean_accuracy: a fraction.
        evaluation_id: hash of model, images, threat model, attacks and seed.
    """

    attacks_to_run: frozenset[str]
    run_attacks: frozenset[str]
    robust_flags: Tensor
    clean_accuracy: float
    evaluation_id: str = ""

    @classmethod
    def from_disk(cls, path: Path | str) -> EvaluationState:
        """Read the file that `to_disk` wrote.

        Raises:
            InvalidInput: no such file, or not a state.
        """
        try:
            fields = parse_json(read_bounded(Path(path), _LARGEST))
            flags = torch.tensor(fields["_robust_flags"], dtype=torch.float32)
            if flags.dim() != 1:
                raise ValueError(f"_robust_flags are a list of one flag a sample, got the shape {list(flags.shape)}")
            return cls(
                frozenset(map(str, fields["_attacks_to_run"])),
                frozenset(map(str, fields["_run_attacks"])),
                flags,
                float(fields["_clean_accuracy"]),
                str(fields.get("_evaluation_id", "")),
            )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise InvalidInput(f"{path} is not a readable AutoAttack state: {printable(error)}") from error

    def to_disk(self, path: Path | str) -> None:
        """Write the state; a reader sees the old file or the new one, never a part.

        Raises:
            StorageError: the file cannot be written.
        """
        target = Path(path)
        fields = {
            "_attacks_to_run": sorted(self.attacks_to_run),
            "path": str(target),
            "_run_attacks": sorted(self.run_attacks),
            "_robust_flags": self.robust_flags.bool().tolist(),
            "_clean_accuracy": self.clean_accuracy,
            "_evaluation_id": self.evaluation_id,
        }
        write_atomically(target, json.dumps(fields).encode())


def points_of(state: Path) -> Path:
    """The file of the adversarial examples that belong to a state."""
    return state.with_name(f"{state.name}.safetensors")
