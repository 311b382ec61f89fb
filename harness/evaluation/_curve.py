"""Robust accuracy against the radius: one evaluation a radius, each an ordinary result, and the curve of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from harness.datasets import Dataset
from harness.engine.types import AttackProgress
from harness.errors import InvalidInput
from harness.evaluation import _evaluate
from harness.evaluation.display import displayed
from harness.evaluation.distances import smallest_distances
from harness.evaluation.plan import Plan, plan_any
from harness.evaluation.samples import gathered
from harness.evaluation.stored import obtain
from harness.results import store
from harness.results.curve import Curve, curve_of
from harness.results.record import Result, Verdicts
from harness.suites import Suite
from harness.threat import ThreatModel

if TYPE_CHECKING:
    from harness.checkpoints import Checkpoint

__all__ = ["ascending", "curve"]


def curve(
    model: nn.Module | Callable[[Tensor], Tensor] | Checkpoint,
    x: Any,
    y: Any = None,
    *,
    eps: Sequence[str | float],
    norm: str | None = None,
    suite: str | Suite = "autoattack",
    name: str | None = None,
    results: str | Path | None = None,
    distances: bool = True,
    progress: bool | Callable[[AttackProgress], None] | None = None,
    **settings: Any,
) -> Curve:
    """Evaluate a model at several radii; see `harness.evaluate` for the model, the images and the settings.

    A sample that was broken at some radius counts as broken at every larger one, so that the curve never rises.

    Args:
        eps: the radii, such as ``["2/255", "4/255", "8/255"]``. Radius 0, where nothing is attacked, is always a point.
        norm: of all radii; that of the checkpoint or data set if not given.
        results: a folder where each evaluation is stored, and found if it is there already; None stores nothing.
        distances: also run the steps of the suite that seek the nearest adversarial example (FAB) to their end, for
            the median distance; that costs about as many passes as these steps cost on samples that survive.

    Raises:
        InvalidInput: radii of which none is above 0, or one is there twice; or as `harness.evaluate`.
        ModelError: the model misbehaved.
    """
    threats = [_threat(one, norm, model, x) for one in eps]
    if y is None and not isinstance(x, Dataset):
        # read once: a loader may give another order the next time, and an iterator nothing
        samples = gathered(x)
        x, y = samples.x, samples.y
    plans = [plan_any(model, x, y, threat=threat, suite=suite, name=name, **settings) for threat in ascending(threats)]
    evaluations = []
    for plan in plans:
        with displayed(plan.target.name, f"{plan.suite.name}, eps {plan.threat.eps}", progress) as report:
            evaluations.append(_evaluation(plan, results, report))
    with displayed(plans[-1].target.name, plans[-1].suite.name, progress) as report:
        found = smallest_distances(plans[-1], progress=report) if distances else None
    return curve_of(evaluations, found)


def ascending(threats: Sequence[ThreatModel]) -> list[ThreatModel]:
    """Threat models of one norm in the order of their radii, without radius 0, where there is nothing to attack.

    Raises:
        InvalidInput: none has a radius above 0, or two have the same one.
    """
    positive = sorted((threat for threat in threats if threat.radius > 0), key=lambda threat: threat.radius)
    if not positive:
        raise InvalidInput("a curve needs an eps above 0, such as 8/255")
    for first, second in pairwise(positive):
        if second.radius - first.radius <= 1e-9 * second.radius:
            raise InvalidInput(f"the radii of a curve must differ, but eps {first.eps} and {second.eps} are the same")
    return positive


def _threat(eps: str | float, norm: str | None, model: Any, x: Any) -> ThreatModel:
    if norm is not None:
        return ThreatModel.parse((norm, eps))
    manifest = getattr(getattr(model, "manifest", None), "threat", None)
    known = ThreatModel.parse(manifest) if manifest else next(iter(getattr(x, "threats", ())), None)
    if known is None:
        raise InvalidInput('no norm is known: give norm="Linf" or another')
    return ThreatModel.parse((known.norm, eps))


def _evaluation(
    plan: Plan, results: str | Path | None, report: Callable[[AttackProgress], None] | None
) -> tuple[Result, Verdicts]:
    if results is None:
        done = _evaluate.run(plan, progress=report)
        return done.result, done.verdicts
    stored = obtain(plan, Path(results).expanduser(), progress=report)
    return stored.result, store.read_verdicts(stored.path)
