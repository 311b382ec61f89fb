"""Which regimes a change agrees with."""

from __future__ import annotations

from collections.abc import Iterable

from harness import regimes
from harness.checkpoints.lineage._difference import Difference
from harness.errors import InvalidInput
from harness.models import Model
from harness.models._selectors import bn_layers, select, select_bn_layers
from harness.regimes._base import Regime

__all__ = ["consistent_regimes", "trains_everything", "violations"]

_LISTED = 3


def violations(model: Model, change: Difference, regime: Regime) -> list[str]:
    """What changed although ``regime`` does not train it; empty where the change is consistent with it."""
    try:
        trained, moving = _touched(model, regime)
    except InvalidInput as error:
        return [str(error)]
    against = []
    for part in change.parts:
        outside = [name for name in part.changed if name in change.changed - trained]
        if outside:
            against.append(f"{len(outside)} of {part.tensors} {part.name} changed ({_some(outside)})")
        if part.name == "normalization" and part.changed:
            against.append(f"the images are normalised otherwise ({_some(part.changed)} changed)")
    still = sorted(change.moved_layers - moving)
    if still:
        against.append(f"the statistics of {len(still)} BN layers moved ({_some(still)})")
    return against


def consistent_regimes(model: Model, change: Difference) -> tuple[str, ...]:
    """The registered regimes with a parent that ``change`` is consistent with.

    Those that train exactly the parameters that changed; where there are none, those that train the
    fewest more.
    """
    fitting: dict[str, int] = {}
    for name in regimes.names():
        regime = regimes.get(name)
        if regime.start == "parent" and not violations(model, change, regime):
            fitting[name] = len(_touched(model, regime)[0] - change.changed)
    fewest = min(fitting.values(), default=0)
    return tuple(name for name, more in fitting.items() if more == fewest)


def trains_everything(model: Model, regime: Regime) -> bool:
    """Whether no parameter is left as it was."""
    return _touched(model, regime)[0] >= {name for name, _ in model.network.named_parameters()}


def _touched(model: Model, regime: Regime) -> tuple[frozenset[str], frozenset[str]]:
    """Parameters and BN layers (by their statistics) that some phase of the regime may change."""
    layers = frozenset(bn_layers(model.network))
    trained: frozenset[str] = frozenset()
    moving: frozenset[str] = frozenset()
    for stage in regime.stages():
        reset = select(model, stage.reset)
        trained |= select(model, stage.trained) | reset
        if stage.reset:
            moving |= select_bn_layers(model, stage.reset)
        if stage.reset_statistics or stage.bn_statistics not in ("frozen", "moving-where-trained"):
            moving |= layers
        elif stage.bn_statistics == "moving-where-trained":
            moving |= select_bn_layers(model, stage.trained)
    return trained, moving


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(listed[:_LISTED]) + more
