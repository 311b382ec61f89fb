"""Which loss an attack raises, fitted to the number of classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from harness.attacks._base import Batch, Loss, State
from harness.attacks._losses import cross_entropy, dlr, margin, targeted_dlr, targeted_margin
from harness.audit.flags import Flag
from harness.audit.kinds import FEWER_TARGETS, LOSS_REPLACED
from harness.errors import InvalidInput, UnknownName

__all__ = ["Objective", "targeted", "untargeted"]

_UNTARGETED: dict[str, Callable[..., Tensor]] = {"ce": cross_entropy, "dlr": dlr, "margin": margin}


@dataclass(frozen=True)
class Objective:
    """A loss to raise.

    Attributes:
        function: the loss, of logits, true classes and, with targets, target classes.
        targets: how many target classes are tried in turn; 0 without targets.
        flags: what had to be adapted to the number of classes.
    """

    function: Callable[..., Tensor]
    targets: int = 0
    flags: tuple[Flag, ...] = ()

    def aim(self, batch: Batch, number: int) -> State:
        """What an attack must remember to aim at target ``number``, from 0, the likeliest class first."""
        if not self.targets:
            return {}
        return {"target": batch.logits.sort(dim=1).indices[:, -(number + 2)]}

    def of(self, batch: Batch, state: State) -> Loss:
        """The loss as a function of the logits of some of these samples."""
        classes = (batch.y, state["target"]) if self.targets else (batch.y,)
        return lambda logits, part: self.function(logits, *(each[part] for each in classes))


def untargeted(name: str, classes: int, *, besides: tuple[str, ...] = ()) -> Objective:
    """The loss ``name`` (ce, dlr, margin); ``besides``: what else the attack knows, for the error.

    Raises:
        UnknownName: no such loss.
        InvalidInput: fewer than 2 classes.
    """
    _at_least_two(classes)
    if name not in _UNTARGETED:
        raise UnknownName("loss", name, (*_UNTARGETED, *besides))
    if name == "dlr" and classes < 3:
        return Objective(margin, flags=(LOSS_REPLACED(needed=3, classes=classes),))
    return Objective(_UNTARGETED[name])


def targeted(classes: int, targets: int) -> Objective:
    """Targeted DLR against the ``targets`` likeliest other classes, as far as there are so many.

    With 2 or 3 classes there is no targeted DLR, and dropping the missing logits from its denominator
    would make it constant for the farthest class; the plain difference of logits always has a slope.

    Raises:
        InvalidInput: fewer than 2 classes.
    """
    _at_least_two(classes)
    aims = min(targets, classes - 1)
    flags: list[Flag] = []
    if aims < targets:
        flags.append(FEWER_TARGETS(asked=targets, used=aims, classes=classes))
    if classes < 4:
        flags.append(LOSS_REPLACED(needed=4, classes=classes))
    return Objective(targeted_margin if classes < 4 else targeted_dlr, aims, tuple(flags))


def _at_least_two(classes: int) -> None:
    if classes < 2:
        raise InvalidInput(f"an attack needs a model of at least 2 classes, got {classes}")
