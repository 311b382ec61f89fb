"""An estimate of what a suite would find: all samples go through its opening, some survivors through the rest.

`harness.results.estimate` says which survivors, and what they say of all; `docs/estimate.md` says why that is so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness._version import __version__
from harness.audit.flags import unique
from harness.engine.types import AttackProgress, Index
from harness.errors import InvalidInput
from harness.evaluation import _evaluate
from harness.evaluation._evaluate import Evaluation
from harness.evaluation.plan import Plan
from harness.results import estimates
from harness.results.estimate import Bounds, next_size, order
from harness.results.estimates import EstimateRecord, Seen
from harness.results.parts import Selection
from harness.suites import Step

__all__ = ["StoredEstimate", "Target", "estimate"]

_FIRST_LOOK = 32
"""Survivors of the first batch where only time says how many there may be."""


@dataclass(frozen=True)
class Target:
    """When an estimate is good enough.

    Attributes:
        half_width: of the interval, as a fraction of all samples; None: as narrow as the time allows.
        seconds: for this run; a batch that would probably not end in time is not begun. None: as long as it takes.
    """

    half_width: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.half_width is None and self.seconds is None:
            raise InvalidInput("an estimate needs a half-width, or a time to end at")
        if self.half_width is not None and not 0 <= self.half_width < 0.5:
            raise InvalidInput(f"the half-width is in points, from 0 to below 50, got {100 * self.half_width:g}")
        if self.seconds is not None and not self.seconds > 0:
            raise InvalidInput(f"the time must be positive, got {self.seconds:g} s")


@dataclass(frozen=True)
class StoredEstimate:
    """An estimate in its file.

    Attributes:
        ran: whether anything was attacked for it now.
    """

    path: Path
    record: EstimateRecord
    ran: bool = False


def estimate(
    plan: Plan, target: Target, root: Path, *, progress: Callable[[AttackProgress], None] | None = None
) -> StoredEstimate:
    """Estimate the result of a plan, from the stored estimate of it if there is one.

    Raises:
        InvalidInput: the plan's suite has no opening.
        ResultError: the stored estimate is damaged or was changed.
    """
    return _Estimation(plan, target, root, progress).run()


class _Estimation:
    """An estimate in the making."""

    def __init__(
        self, plan: Plan, target: Target, root: Path, progress: Callable[[AttackProgress], None] | None
    ) -> None:
        if not plan.suite.opening:
            raise InvalidInput(
                f"the suite {plan.suite.name} has no opening, so that it cannot be estimated; take --suite autoattack"
            )
        self.plan, self.target, self.root, self.progress = plan, target, root, progress
        self.began = time.monotonic()
        self.seconds_each = 0.0

    def run(self) -> StoredEstimate:
        path = estimates.path_of(self.root, self.plan.evaluation_id)
        ran = not path.exists()
        record, seen = self._opened() if ran else estimates.read(path)
        bounds = Bounds(len(seen.order), record.census, record.confidence)
        bounds.see(seen.broken)
        rest = tuple(step for step in self.plan.suite.steps if step not in self.plan.suite.opening)
        while (size := self._next(bounds, record.n)) is not None:
            done, seconds = self._attack(rest, seen.order[bounds.seen : size], f"estimate-{bounds.seen}")
            broken = ~done.verdicts.robust
            bounds.see(broken)
            seen = replace(seen, broken=np.concatenate([seen.broken, broken]))
            record = _noted(record, done, bounds, seconds)
            # after every batch, so that a run that is killed loses one batch at most
            estimates.save(record, seen, self.root)
            done.state.clear()
            ran = True
        return StoredEstimate(path, estimates.read(path)[0], ran)

    def _opened(self) -> tuple[EstimateRecord, Seen]:
        """All samples through the first runs of the suite, and the survivors in the order in which to go on."""
        n = len(self.plan.target.x)
        done, seconds = self._attack(self.plan.suite.opening, np.arange(n, dtype=np.int64), "opening")
        alive = done.verdicts.robust.astype(bool)
        survivors = np.flatnonzero(alive).astype(np.int64)
        chosen = order(_margins(done)[survivors], seed=self.plan.settings.seed)
        bounds = Bounds(len(survivors), chosen.census)
        record = EstimateRecord(
            **self.plan.description,
            **_figures(bounds, n),
            seed=self.plan.settings.seed,
            n=n,
            clean_acc=done.result.clean_acc,
            confidence=bounds.confidence,
            opening_acc=float(alive.mean()),
            survivors=len(survivors),
            census=chosen.census,
            forward=0,
            backward=0,
            flags=[],
            environment=done.result.environment,
            evaluation_id=self.plan.evaluation_id,
            recorded="",
            seconds=0.0,
            harness_version=__version__,
        )
        record = _noted(record, done, bounds, seconds)
        seen = Seen(alive, survivors[chosen.positions], np.zeros(0, dtype=bool))
        estimates.save(record, seen, self.root)
        done.state.clear()
        return record, seen

    def _next(self, bounds: Bounds, n: int) -> int | None:
        """How many survivors to have attacked after the next batch; None where it is good enough, or time is up."""
        target = self.target
        width = 0 if target.half_width is None else int(2 * target.half_width * n)
        if bounds.high - bounds.low <= width or bounds.seen == bounds.size:
            return None
        if target.half_width is None and bounds.seen == 0:
            size = min(bounds.size, bounds.census + _FIRST_LOOK)
        else:
            size = next_size(bounds, width)
        if target.seconds is not None and self.seconds_each:
            left = target.seconds - (time.monotonic() - self.began)
            size = min(size, bounds.seen + int(left / self.seconds_each))
        return size if size > bounds.seen else None

    def _attack(self, steps: tuple[Step, ...], rows: Index, label: str) -> tuple[Evaluation, float]:
        """Run some steps on some samples; also how many seconds that took."""
        began = time.monotonic()
        cut = replace(self.plan, suite=replace(self.plan.suite, steps=steps), part=Selection(rows, label))
        done = _evaluate.run(cut, progress=self.progress, keep_state=True)
        seconds = time.monotonic() - began
        if label != "opening":
            self.seconds_each = seconds / len(rows)
        return done, seconds


def _margins(done: Evaluation) -> np.ndarray[Any, np.dtype[np.float64]]:
    """How far each sample's true class leads on its clean image, ``[n]``."""
    if done.logits is None:  # margins decide the cost only
        return np.zeros(len(done.verdicts))
    logits = done.logits.double()
    true = torch.from_numpy(done.verdicts.y)[:, None]
    others = logits.scatter(1, true, -torch.inf)
    margins: np.ndarray[Any, np.dtype[np.float64]] = (logits.gather(1, true).squeeze(1) - others.amax(1)).numpy()
    return margins


def _figures(bounds: Bounds, n: int) -> dict[str, Any]:
    """What the bounds say of the robust accuracy."""
    return {
        "robust_acc": (bounds.size - bounds.middle) / n,
        "low": (bounds.size - bounds.high) / n,
        "high": (bounds.size - bounds.low) / n,
        "attacked": bounds.seen,
        "broken": bounds.broken,
    }


def _noted(record: EstimateRecord, done: Evaluation, bounds: Bounds, seconds: float) -> EstimateRecord:
    """The record with what a run found and cost."""
    changed = {
        **_figures(bounds, record.n),
        "forward": record.forward + int(done.verdicts.forward.sum()),
        "backward": record.backward + int(done.verdicts.backward.sum()),
        "flags": unique([*record.flags, *done.result.flags]),
        "environment": done.result.environment,
        "recorded": datetime.now(UTC).isoformat(timespec="microseconds"),
        "seconds": record.seconds + seconds,
    }
    return record.model_copy(update=changed)
