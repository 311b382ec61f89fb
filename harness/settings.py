"""How to run an evaluation, as opposed to what is evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import InvalidInput

if TYPE_CHECKING:
    import torch

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """How to run, as opposed to what: none of this changes a verdict beyond floating-point rounding.

    Attributes:
        seed: of all randomness (this one does decide the outcome).
        batch_size: the most samples in one pass, or "auto".
        precision: auto, fp32, tf32 or bf16 for the attacks; the judge always uses full float32. auto is fp32, and on a
            GPU TF32 where that is faster, as torch comes: the difference is not part of a result's identity.
        device: where to run; None is where the model is.
        workers: processes on a CPU, one thread each, or "auto" for one per core; 1 stays in this process and
            leaves its threads as they are.
        deterministic: the same points and passes, bit for bit, however samples are batched, spread over workers or cut
            into shards: nothing is made side by side or ahead, and which copy makes the passes is not timed. Slower
            where few samples survive.
        compiled: use torch.compile. graphs: replay passes as CUDA graphs; None is where they are faster, on a GPU.
        state_dir: where a run in flight is saved, so that it can continue after a kill; None keeps nothing.
        checks: audit checks to make of the model besides the registered ones, by name or as ``FILE.py:NAME``.
    """

    seed: int = 0
    batch_size: int | str = "auto"
    precision: str = "auto"
    device: str | torch.device | None = None
    workers: int | str = "auto"
    deterministic: bool = False
    compiled: bool = False
    graphs: bool | None = None
    state_dir: Path | None = None
    checks: tuple[str, ...] = ()

    @property
    def precision_class(self) -> str:
        """What results are told apart by."""
        return "fp32" if self.precision == "auto" else self.precision

    def __post_init__(self) -> None:
        if self.batch_size != "auto" and (not isinstance(self.batch_size, int) or self.batch_size < 1):
            raise InvalidInput(f"the batch size must be 'auto' or at least 1, got {self.batch_size!r}")
