"""A drop-in for the reference AutoAttack class, on this engine: change one import.

>>> from harness.autoattack import AutoAttack
>>> adversary = AutoAttack(model, norm="Linf", eps=8/255, version="standard")  # doctest: +SKIP
>>> x_adv = adversary.run_standard_evaluation(x, y, bs=250)  # doctest: +SKIP

Constructor, methods and return values are those of the class that robustbench and most papers use
(`autoattack.AutoAttack`), and with ``verbose`` it says on stdout what that one says. Three things differ, on purpose:
``seed=None`` means seed 0 and not the clock, doubts about the model are Python warnings, and a run with ``state_path``
continues where it was interrupted and is not repeated once it is finished.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from harness.autoattack._log import Log, Progress
from harness.autoattack._parts import APGD, FAB, SQUARE, Part
from harness.autoattack._state import EvaluationState, points_of
from harness.errors import InvalidInput, UnknownName
from harness.evaluation import Plan, plan_model, run
from harness.models import as_module
from harness.results.record import Result
from harness.suites import Step, Suite
from harness.threat import ThreatModel
from harness.util.files import write_atomically

__all__ = ["AutoAttack", "EvaluationState"]

_VERSIONS = ("custom", "plus", "rand", "standard")
_ATTACKS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")


class AutoAttack:
    """An ensemble of attacks on one model.

    Args:
        model: images in [0, 1] to logits; a module or any callable.
        norm: Linf, L2 or L1, also as "inf", 2, ... eps: the radius, a number or text such as "8/255".
        seed: of all randomness; None is 0.
        verbose: report on stdout.
        attacks_to_run: with ``version="custom"``, which attacks, in order.
        version: standard, plus, rand or custom.
        is_tf_model: must be False; TensorFlow models are not supported.
        device: where the model is.
        log_path: a file that gets the report as well.

    With ``version="custom"`` budgets are set as on the reference, for example ``adversary.apgd.n_restarts = 2``. What
    all attacks share is set on the whole: ``adversary.epsilon``, ``adversary.seed``, ``adversary.attacks_to_run``.

    Raises:
        ValueError: ``attacks_to_run`` together with a version other than custom.
    """

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], Tensor],
        norm: str | float = "Linf",
        eps: float | str = 0.3,
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
        self.norm, self.epsilon, self.seed = _NORMS.get(str(norm).lower(), str(norm)), eps, seed
        self.verbose, self.version, self.device = verbose, version, device
        self.logger = Log(None if log_path is None else Path(log_path))
        self.attacks_to_run: list[str] = list(attacks_to_run)
        self.apgd, self.apgd_targeted = Part(self, **APGD), Part(self, **APGD | {"n_restarts": 1})
        self.fab, self.square = Part(self, **FAB), Part(self, **SQUARE)
        _ = self._threat  # so that a wrong norm or radius is refused here
        if version != "custom":
            self.set_version(version)

    @property
    def _threat(self) -> ThreatModel:
        return ThreatModel.parse((self.norm, self.epsilon))

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
            ValueError: the state file is of other attacks, or of another model, other images, another radius or seed.
        """
        plan = self._plan(x_orig, y_orig, self.attacks_to_run, bs, state_path)
        if self.verbose:
            self.logger.log(f"using {self.version} version including {', '.join(self.attacks_to_run)}.")
        state = None if state_path is None else Path(state_path)
        known = None if state is None else self._finished(state, plan)
        if known is None:
            known = self._attacked(plan)
            if state is not None:
                self._keep(known, plan, state)
        x_adv = _like(known.points, x_orig)
        self._say_last(known, x_adv, x_orig)
        return (x_adv, known.labels.to(y_orig)) if return_labels else x_adv

    def run_standard_evaluation_individual(
        self, x_orig: Tensor, y_orig: Tensor, bs: int = 250, return_labels: bool = False
    ) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
        """Every attack on its own, each on all samples that are right without attack."""
        found: dict[str, Tensor | tuple[Tensor, Tensor]] = {}
        for name in self.attacks_to_run:
            done = self._attacked(self._plan(x_orig, y_orig, [name], bs, None), alone=name)
            x_adv = _like(done.points, x_orig)
            found[name] = (x_adv, done.labels.to(y_orig)) if return_labels else x_adv
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

    def _plan(self, x: Tensor, y: Tensor, names: Sequence[str], bs: int, state: str | Path | None) -> Plan:
        suite = Suite(self.version, tuple(map(self._step, names)), expects_random=self.version == "rand")
        return plan_model(
            self.model,
            x,
            y,
            threat=self._threat,
            suite=suite,
            seed=self.get_seed(),
            batch_size=bs,
            device=self.device,
            state_dir=None if state is None else Path(state).with_name(f".{Path(state).name}.parts"),
        )

    def _attacked(self, plan: Plan, *, alone: str = "") -> _Found:
        """Run a plan, with what the reference says meanwhile.

        Args:
            alone: the attack, where it is not one of several.
        """
        # a saved state stays until the verdicts are on the disk
        done = run(plan, progress=Progress(self.logger) if self.verbose else None, keep_state=True)
        result = done.result
        for flag in result.flags:
            if flag.doubtful:
                warnings.warn(str(flag), stacklevel=3)
        if self.verbose:
            self._say_steps(result, alone)
        labels = torch.from_numpy(done.verdicts.adv_pred)
        return _Found(done.points[:], labels, torch.from_numpy(done.verdicts.robust), result.clean_acc)

    def _say_steps(self, result: Result, alone: str) -> None:
        seconds = 0.0
        self.logger.log(f"initial accuracy: {result.clean_acc:.2%}")
        for step in result.steps:
            seconds += step.seconds
            after = f"{step.after / result.n:.2%}"
            text = f"robust accuracy by {alone.upper()}" if alone else f"robust accuracy after {step.name.upper()}"
            self.logger.log(f"{text}: {after} (total time {seconds:.1f} s)")
        for flag in result.flags:
            if not flag.doubtful:
                self.logger.log(flag.line)

    def _say_last(self, known: _Found, x_adv: Tensor, x: Tensor) -> None:
        if self.verbose:
            largest = float(self._threat.distance(x_adv.float(), x.float()).max())
            low, high = float(x_adv.min()), float(x_adv.max())
            missing = int(torch.isnan(x_adv).sum())
            self.logger.log(
                f"max {self.norm} perturbation: {largest:.5f}, nan in tensor: {missing}, "
                f"max: {high:.5f}, min: {low:.5f}"
            )
            self.logger.log(f"robust accuracy: {float(known.robust.float().mean()):.2%}")

    def _finished(self, state: Path, plan: Plan) -> _Found | None:
        """What a finished run of the same evaluation has left.

        Raises:
            ValueError: the state is of other attacks, or of another model, data, radius or seed.
        """
        if not state.exists():
            return None
        known = EvaluationState.from_disk(state)
        if known.attacks_to_run != frozenset(self.attacks_to_run):
            raise ValueError(f"the state in {state} is of other attacks: {sorted(known.attacks_to_run)}")
        if known.evaluation_id != plan.evaluation_id:
            raise ValueError(
                f"the state in {state} is of another model, other images, another radius or seed: give this run "
                "another state_path, or remove the file"
            )
        try:
            held = load_file(points_of(state))
        except (OSError, SafetensorError):
            return None
        if held.get("points", plan.target.y).shape != plan.target.x.shape or "labels" not in held:
            return None
        if plan.settings.state_dir is not None:  # left by a run that was killed at its very end
            shutil.rmtree(plan.settings.state_dir, ignore_errors=True)
        if self.verbose:
            self.logger.log(f"nothing left to run: {state} holds the finished evaluation")
        return _Found(held["points"], held["labels"], known.robust_flags.bool(), known.clean_accuracy)

    def _keep(self, found: _Found, plan: Plan, state: Path) -> None:
        write_atomically(points_of(state), save({"points": found.points.contiguous(), "labels": found.labels}))
        attacks = frozenset(self.attacks_to_run)
        robust = found.robust.float()
        EvaluationState(attacks, attacks, robust, found.clean_accuracy, plan.evaluation_id).to_disk(state)
        if plan.settings.state_dir is not None:
            shutil.rmtree(plan.settings.state_dir, ignore_errors=True)

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


_NORMS = {"inf": "Linf", "l_inf": "Linf", "l-inf": "Linf", "2": "L2", "2.0": "L2", "1": "L1", "1.0": "L1"}
"""Other ways to write a norm."""


def _like(points: Tensor, x: Tensor) -> Tensor:
    """Points where the images are and in their type; in float32 where that is half precision, which would move them."""
    return points.to(x.device, torch.promote_types(x.dtype, torch.float32))


class _Found(NamedTuple):
    points: Tensor
    labels: Tensor
    robust: Tensor
    clean_accuracy: float
