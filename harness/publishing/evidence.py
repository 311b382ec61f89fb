"""A stored result with everything that it is about, verified."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from harness import checkpoints, evaluation
from harness.audit.flags import Flag, unique
from harness.audit.kinds import STEPS_DIFFER
from harness.boards.suites_held import deviation
from harness.checkpoints import Checkpoint
from harness.errors import ResultError
from harness.evaluation import Material, Verification
from harness.evaluation.target import Target
from harness.results import adversarial, history, store
from harness.results.history import Entry
from harness.results.record import Result, Verdicts
from harness.util.text import counted

__all__ = ["Evidence", "doubts", "gather"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of a result.

    Attributes:
        path: the result's file.
        target: the model and the images that it was made on. checkpoint: the model's.
        adversarial: ``[n, ...]`` the adversarial example of each sample, the clean image where there is none; None
            where the result keeps no examples, or they cannot be read.
    """

    path: Path
    result: Result
    verdicts: Verdicts
    verification: Verification
    checkpoint: Checkpoint
    target: Target
    adversarial: Tensor | None

    @property
    def flags(self) -> list[Flag]:
        """Reasons to doubt the figures: those in the result, and what its steps, the model and the images say now."""
        difference = deviation(self.result)
        steps = [] if difference is None else [STEPS_DIFFER(suite=self.result.suite, difference=difference)]
        return [flag for flag in unique([*self.result.flags, *self.target.flags, *steps]) if flag.doubtful]

    @property
    def taken_back(self) -> Entry | None:
        """The line that took the result back, in the history of the folder that it lies in."""
        return history.withdrawals(history.read(self.path.parent))(self.result)


def gather(
    path: str | Path,
    *,
    checkpoint: str | Path | None = None,
    checkpoint_dir: str | Path | None = None,
    dataset: str | None = None,
    data_dir: str | Path | None = None,
    download: bool = False,
    device: str | torch.device | None = None,
) -> Evidence:
    """Verify a result of a registered checkpoint, and load what it is about.

    Args:
        path: the result's file. The others are those of `harness.verify`.

    Raises:
        ResultError: the result or its verdicts cannot be read, or were changed.
        HarnessError: its checkpoint or its images are not there, or are others.
    """
    file = Path(path)
    result, verdicts = store.read(file), store.read_verdicts(file)
    material = Material(None, checkpoint, dataset, None, checkpoint_dir, data_dir, download)
    point = checkpoints.load(material.name(result), checkpoint_dir=checkpoint_dir)
    target = material.target(result)
    verification = evaluation.verify(
        file,
        checkpoint=checkpoint,
        checkpoint_dir=checkpoint_dir,
        dataset=dataset,
        data_dir=data_dir,
        download=download,
        device=device,
    )
    return Evidence(file, result, verdicts, verification, point, target, _adversarial(file, result, target))


def doubts(evidence: Evidence) -> Iterator[str]:
    """Why a result should not be published as it is, a clause each; none where nothing stands against it."""
    result = evidence.result
    taken_back = evidence.taken_back
    if taken_back is not None:
        yield f"it was taken back ({taken_back.text})"
    if result.partial:
        yield f"it is partial: {result.n:,} of {counted(result.dataset.size, 'image')}"
    for flag in evidence.flags:
        yield f"it has the flag {flag.code} ({flag})"
    for check in evidence.verification.checks:
        if not check.holds:
            what = "is wrong" if check.holds is False else "could not be checked"
            yield f"in its verification {check.name!r} {what} ({check.text})"


def _adversarial(path: Path, result: Result, target: Target) -> Tensor | None:
    clean = target.x[:].to(target.dtype)
    if result.adversarial is None:
        return None if result.clean_acc > result.robust_acc else clean
    try:
        stored = adversarial.unpack(
            path.with_name(Path(result.adversarial.file).name), clean, result.adversarial.sha256
        )
    except ResultError:  # the verification says what is wrong with them
        return None
    points = clean.clone()
    points[torch.from_numpy(stored.rows)] = stored.points.to(points.dtype)
    return points
