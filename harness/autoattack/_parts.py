"""The budgets of the attacks of an ensemble, as scripts read and set them."""

from __future__ import annotations

from typing import Any

from harness.errors import did_you_mean

__all__ = ["APGD", "FAB", "SQUARE", "Part"]


class Part:
    """The budgets of one attack. What all attacks of an ensemble share is read from the ensemble and set there."""

    def __init__(self, whole: object, **budgets: Any) -> None:
        vars(self).update(budgets, _whole=whole)

    def __getattr__(self, name: str) -> Any:
        if name in _SHARED:
            return getattr(vars(self)["_whole"], _SHARED[name])
        raise AttributeError(self._unknown(name))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _SHARED:
            shared = _SHARED[name]
            if getattr(self._whole, shared) != value:
                raise AttributeError(
                    f"all attacks of an AutoAttack share {name}: set adversary.{shared} to {value!r}, or make another "
                    "AutoAttack for this attack"
                )
            return
        if name not in vars(self):
            raise AttributeError(self._unknown(name))
        vars(self)[name] = value

    def __repr__(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if name != "_whole")

    def _unknown(self, name: str) -> str:
        known = [other for other in vars(self) if other != "_whole"]
        return f"there is no budget {name!r}, expected one of {', '.join(known)}{did_you_mean(name, known)}"


# attribute of an attack of the reference -> attribute of the ensemble
_SHARED = {"eps": "epsilon", "norm": "norm", "seed": "seed", "verbose": "verbose", "device": "device", "model": "model"}

APGD = {
    "n_restarts": 5,
    "n_iter": 100,
    "eot_iter": 1,
    "rho": 0.75,
    "use_largereps": False,
    "n_target_classes": 9,
}
FAB = {"n_restarts": 5, "n_iter": 100, "n_target_classes": 9, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9}
SQUARE = {"n_queries": 5000, "n_restarts": 1, "p_init": 0.8}
