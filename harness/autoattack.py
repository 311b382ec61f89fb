"""A drop-in for the reference AutoAttack class, on this engine: change one import.

>>> from harness.autoattack import AutoAttack
>>> adversary = AutoAttack(model, norm="Linf", eps=8/255, version="standard")  # doctest: +SKIP
>>> x_adv = adversary.run_standard_evaluation(x, y, bs=250)  # doctest: +SKIP

Constructor, methods and return values are those of the class that robustbench and most papers use
(`autoattack.AutoAttack`). Three things differ, on purpose: ``seed=None`` means seed 0 and not the clock,
progress goes to the logger ``harness.autoattack`` and not to stdout, and an interrupted run with
``state_path`` continues where it was.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from harness.errors import InvalidInput, UnknownName
from harness.evaluation import Evaluation, examine
from harness.models import as_module
from harness.suites import Step, Suite
from harness.threat import ThreatModel
from harness.util.files import write_atomically

__all__ = ["AutoAttack", "EvaluationState"]

_VERSIONS = ("custom", "plus", "rand", "standard")
_ATTACKS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")


@dataclass(slots=True)
class _Apgd:
    n_restarts: int = 5
    n_iter: int = 100
    eot_iter: int = 1
    rho: float = 0.75
    use_largereps: bool = False
    n_target_classes: int = 9


@dataclass(slots=True)
class _Fab:
    n_restarts: int = 5
    n_iter: int = 100
    n_target_classes: int = 9
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9


@dataclass(slots=True)
class _Square:
    n_queries: int = 5000
    n_restarts: int = 1
    p_init: float = 0.8


class AutoAttack:
    """An ensemble of attacks on one model.

    Args:
        model: images in [0, 1] to logits; a module or any callable.
        norm: Linf, L2 or L1. eps: the radius.
        seed: of all randomness; None is 0.
        verbose: report to the logger ``harness.autoattack``.
        attacks_to_run: with ``version="custom"``, which attacks, in order.
        version: standard, plus, rand or custom.
        is_tf_model: must be False; TensorFlow models are not supported.
        device: where the model is.
        log_path: a file that gets the report as well.

    With ``version="custom"`` budgets are set as on the reference, for example
    ``adversary.apgd.n_restarts = 2``.

    Raises:
        ValueError: ``attacks_to_run`` together with a version other than custom.
    """

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], Tensor],
        norm: str = "Linf",
        eps: float = 0.3,
        seed: int | None = None,
        verbose: bool = True,
        attacks_to_run: Sequence[str] = (),
        version: str = "standard",
        is_tf_model: bool = False,
        device: str | torch.device = "cuda",
        log_path: str | Path | None = None,
    ) -> None:
        if is_tf_model:
            raise InvalidInput("TensorFlow models are not supported; wrap the model as a PyTorch module")
        if version not in _VERSIONS:
            raise UnknownName("AutoAttack version", version, _VERSIONS)
        if version != "custom" and attacks_to_run:
            raise ValueError("attacks_to_run is for version='custom'; the other versions name their own attacks")
        self.model = as_module(model)
        self.norm, self.epsilon, self.seed = norm, eps, seed
        self.verbose, self.version, self.device = verbose, version, device
        self.log_path = None if log_path is None else Path(log_path)
        self.attacks_to_run: list[str] = list(attacks_to_run)
        self.apgd, self.apgd_targeted = _Apgd(), _Apgd(n_restarts=1)
        self.fab, self.square = _Fab(), _Square()
        self._threat = ThreatModel(norm, repr(float(eps)))
        if version != "custom":
            self.set_version(version)

    def set_version(self, version: str = "standard") -> None:
        """Attacks and budgets of a version."""
        if version not in _VERSIONS or version == "custom":
            raise UnknownName("AutoAttack version", version, [name for name in _VERSIONS if name != "custom"])
        sparse = self._threat.geometry.sparse
        self.version = version
        if version != "rand":
            self.apgd_targeted.n_restarts, self.fab.n_target_classes, self.square.n_queries = 1, 9, 5000
        if version == "standard":
            self.attacks_to_run = ["apgd-ce", "apgd-t", "fab-t", "square"]
            self.apgd.n_restarts, self.fab.n_restarts = 5 if sparse else 1, 1
            self.apgd.use_largereps = self.apgd_targeted.use_largereps = sparse
            self.apgd_targeted.n_target_classes = 5 if sparse else 9
        elif version == "plus":
            self.attacks_to_run = ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
            self.apgd.n_restarts = self.fab.n_restarts = 5
            self.apgd_targeted.n_target_classes = 9
        else:
            self.attacks_to_run = ["apgd-ce", "apgd-dlr"]
            self.apgd.n_restarts, self.apgd.eot_iter = 1, 20

    @overload
    def run_standard_evaluation(
        self, x_orig: Tensor, y_orig: Tensor, bs: int = ..., return_labels: Literal[False] = ..., state_path: Any = ...
    ) -> Tensor: ...

    @overload
    def run_standard_evaluation(
        self, x_orig: Tensor, y_orig: Tensor, bs: int = ..., *, return_labels: Literal[True], state_path: Any = ...
    ) -> tuple[Tensor, Tensor]: ...

    def run_standard_evaluation(
        self,
        x_orig: Tensor,
        y_orig: Tensor,
        bs: int = 250,
        return_labels: bool = False,
        state_path: str | Path | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """All attacks in order, each on the samples that survive so far.

        Args:
            x_orig: ``[n, ...]`` in [0, 1]; y_orig: ``[n]`` true classes.
            bs: samples in one pass.
            return_labels: return the model's classes on the result as well.
            state_path: a JSON file for the state; an interrupted run continues from it.

        Returns:
            ``x_adv`` like ``x_orig``, the clean image where nothing was found (and ``y_adv [n]``).

        Raises:
            ValueError: the state file is of another set of attacks.
        """
        state = None if state_path is None else Path(state_path)
        if state is not None and state.exists():
            known = EvaluationState.from_disk(state)
            if known.attacks_to_run != frozenset(self.attacks_to_run):
                raise ValueError(f"the state in {state} is of other attacks: {sorted(known.attacks_to_run)}")
            if known.run_attacks >= known.attacks_to_run:
                self._say(f"nothing left to run: {state} holds a finished evaluation")
                labels = self._predict(x_orig, bs)
                return (x_orig.clone(), labels) if return_labels else x_orig.clone()
        folder = None if state is None else state.with_name(f".{state.name}.parts")
        evaluation = self._examine(x_orig, y_orig, self.attacks_to_run, bs, folder)
        result = evaluation.result
        self._say(f"initial accuracy: {result.clean_acc:.2%}")
        for step in result.steps:
            self._say(f"robust accuracy after {step.name}: {step.after / result.n:.2%} ({step.seconds:.1f} s)")
        for flag in result.flags:
            self._say(f"{'warning' if flag.doubtful else flag.severity}: {flag}")
        if state is not None and folder is not None:
            EvaluationState(
                frozenset(self.attacks_to_run),
                frozenset(self.attacks_to_run),
                torch.from_numpy(evaluation.verdicts.robust).float(),
                result.clean_acc,
            ).to_disk(state)
            shutil.rmtree(folder, ignore_errors=True)
        x_adv = evaluation.points.to(x_orig)
        y_adv = torch.from_numpy(evaluation.verdicts.adv_pred).to(y_orig)
        return (x_adv, y_adv) if return_labels else x_adv

    def run_standard_evaluation_individual(
        self, x_orig: Tensor, y_orig: Tensor, bs: int = 250, return_labels: bool = False
    ) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
        """Every attack on its own, each on all samples that are right without attack."""
        found: dict[str, Tensor | tuple[Tensor, Tensor]] = {}
        for name in self.attacks_to_run:
            evaluation = self._examine(x_orig, y_orig, [name], bs, None)
            self._say(f"robust accuracy by {name}: {evaluation.result.robust_acc:.2%}")
            x_adv = evaluation.points.to(x_orig)
            y_adv = torch.from_numpy(evaluation.verdicts.adv_pred).to(y_orig)
            found[name] = (x_adv, y_adv) if return_labels else x_adv
        return found

    def clean_accuracy(self, x_orig: Tensor, y_orig: Tensor, bs: int = 250) -> float:
        """Share of samples that the model gets right."""
        return float((self._predict(x_orig, bs) == y_orig.to(x_orig.device)).float().mean())

    def get_logits(self, x: Tensor) -> Tensor:
        """The model's output."""
        logits: Tensor = self.model(x)
        return logits

    def get_seed(self) -> int:
        """The seed in use; where none was given, 0 (the reference takes the clock)."""
        return 0 if self.seed is None else int(self.seed)

    def _predict(self, x: Tensor, bs: int) -> Tensor:
        with torch.no_grad():
            parts = [self.get_logits(x[i : i + bs].to(self.device)).argmax(dim=1) for i in range(0, len(x), bs)]
        return torch.cat(parts).to(x.device)

    def _examine(self, x: Tensor, y: Tensor, names: Sequence[str], bs: int, folder: Path | None) -> Evaluation:
        suite = Suite(self.version, tuple(map(self._step, names)), expects_random=self.version == "rand")
        return examine(
            self.model,
            x,
            y,
            threat=self._threat,
            suite=suite,
            seed=self.get_seed(),
            batch_size=bs,
            device=self.device,
            state_dir=folder,
        )

    def _step(self, name: str) -> Step:
        apgd, targeted, fab, square = self.apgd, self.apgd_targeted, self.fab, self.square
        common = {"steps": apgd.n_iter, "restarts": apgd.n_restarts, "eot": apgd.eot_iter, "rho": apgd.rho}
        walk = {"steps": fab.n_iter, "alpha_max": fab.alpha_max, "eta": fab.eta, "beta": fab.beta}
        radii = {"larger_radii": True} if apgd.use_largereps else {}
        if name in ("apgd-ce", "apgd-dlr"):
            return Step(name, "apgd", {"loss": name.removeprefix("apgd-"), **common, **radii})
        if name == "apgd-t":
            return Step(
                name,
                "apgd",
                {
                    "loss": "dlr-targeted",
                    "steps": targeted.n_iter,
                    "restarts": targeted.n_restarts,
                    "targets": targeted.n_target_classes,
                    "eot": targeted.eot_iter,
                    "rho": targeted.rho,
                    **({"larger_radii": True} if targeted.use_largereps else {}),
                },
            )
        if name == "fab":
            return Step(name, "fab", {"restarts": fab.n_restarts, **walk})
        if name == "fab-t":
            # the reference gives its targeted runs one restart each, whatever was set
            return Step(name, "fab", {"targeted": True, "targets": fab.n_target_classes, **walk})
        if name == "square":
            parameters = {"queries": square.n_queries, "restarts": square.n_restarts, "p_init": square.p_init}
            return Step(name, "square", parameters)
        raise UnknownName("attack", name, _ATTACKS)

    def _say(self, message: str) -> None:
        if not self.verbose:
            return
        logging.getLogger("harness.autoattack").info(message)
        if self.log_path is not None:
            with self.log_path.open("a", encoding="utf-8") as file:
                file.write(message + "\n")


@dataclass
class EvaluationState:
    """What an AutoAttack run leaves in the file ``state_path``, in the reference's JSON fields.

    Attributes:
        attacks_to_run: names of all attacks of the run.
        run_attacks: those that are done.
        robust_flags: ``[n]``, 1 where a sample survives; float, because robustbench takes its mean.
        clean_accuracy: a fraction.
    """

    attacks_to_run: frozenset[str]
    run_attacks: frozenset[str]
    robust_flags: Tensor
    clean_accuracy: float

    @classmethod
    def from_disk(cls, path: Path | str) -> EvaluationState:
        """Read the file that `to_disk` wrote.

        Raises:
            InvalidInput: no such file, or not a state.
        """
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(
                frozenset(fields["_attacks_to_run"]),
                frozenset(fields["_run_attacks"]),
                torch.tensor(fields["_robust_flags"], dtype=torch.float32),
                float(fields["_clean_accuracy"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidInput(f"{path} is not a readable AutoAttack state: {error}") from error

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
        }
        write_atomically(target, json.dumps(fields).encode())
